/* exec, of a program for which there is a template. */
#include "front.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    const char *process, *pid_file;
    bool detached;
};

/* Read the words behind the verb; false unless all of them are known here. */
static bool read_words(struct options *options, struct request *request, struct wish *wish, char **words)
{
    while (*words && **words == '-') {
        const char *variable = NULL;
        int taken = valued_option(words, "--process", "-p", &options->process);
        taken = taken ? taken : valued_option(words, "--pid-file", "", &options->pid_file);
        taken = taken ? taken : valued_option(words, "--cwd", "", &request->directory);
        taken = taken ? taken : valued_option(words, "--env", "-e", &variable);
        if (variable && !words_add(&request->environment, variable))
            return false;
        if (!taken && (!strcmp(*words, "--detach") || !strcmp(*words, "-d"))) {
            options->detached = true;
            taken = 1;
        }
        if (!taken)
            return false;
        words += taken;
    }
    if (!*words || (words[1] && *words[1] == '-'))
        return false;
    wish->words[0] = *words++;
    while (*words)
        if (!words_add(&request->arguments, *words++))
            return false;
    return true;
}

static bool read_request(struct options *options, struct request *request, struct wish *wish)
{
    if (!read_words(options, request, wish, wish->rest))
        return false;
    if (options->process) {
        size_t size;
        char *text;
        if (request->arguments.count || request->environment.count || request->directory
            || !(text = read_file(options->process, &size)) || !read_process(request, text, size))
            return false;
    } else {
        bytes_add(&request->signature, "plain", 5);
    }
    return request->arguments.count && (!request->directory || *request->directory == '/');
}

static pid_t begin(const struct container *container, const struct request *request)
{
    char directory[PATH_SIZE], name[32];
    struct plan_text plan = { 0 };
    pid_t pid = 0;
    snprintf(name, sizeof name, "exec-%d", getpid());
    if (container_path(container, name, directory) && template_find(&plan, container, request, directory)
        && !mkdir(directory, 0700)) {
        pid = launch(&plan, &(struct answers){ .container = container });
        remove_directory(directory);
    }
    return pid;
}

int verb_exec(const struct wish *asked)
{
    struct wish wish = *asked;
    struct options options = { 0 };
    struct request request = { 0 };
    struct container container;
    char temporary[PATH_SIZE];
    int file = -1;
    if (getenv("LISTEN_FDS") || !read_request(&options, &request, &wish) || !container_find(&container, &wish)
        || strcmp(container.status, "running"))
        return HAND_OVER;
    if (options.pid_file && (file = pid_file_open(options.pid_file, temporary)) < 0)
        return HAND_OVER;
    hold_signals(); /* until there is somebody to pass them on to */
    pid_t pid = begin(&container, &request);
    if (!pid) {
        release_signals();
        if (file >= 0)
            unlink(temporary);
        return HAND_OVER;
    }
    pid_file_write(file, pid, temporary, options.pid_file);
    return options.detached ? 0 : await(pid);
}
