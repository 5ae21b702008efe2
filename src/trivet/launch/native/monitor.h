/* The monitor: parent of one instance's program (or of its QEMU); outlives the engine. */
#ifndef TRIVET_MONITOR_H
#define TRIVET_MONITOR_H

#include "executor.h"

/* Carry out a plan that has a Monitor operation; `report` is where READY, STARTED or FAILED is said once. */
int monitor_main(struct executor *executor, const struct plan *plan, int report);

/* Write a FAILED frame from what `executor` remembers and errno. */
void report_failure(int fd, const struct executor *executor);

#endif
