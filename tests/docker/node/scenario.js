// dockerode, as dashboards, IDE plugins and CI runners use it. Prints one JSON document; any surprise ends with 1.
'use strict';
const assert = require('node:assert');
const { PassThrough } = require('node:stream');
const Docker = require(process.env.DOCKERODE);

const docker = new Docker({ socketPath: process.argv[2] });
const image = process.argv[3];
const none = { NetworkMode: 'none' };

const text = (stream) => new Promise((resolve, reject) => {
  let all = '';
  stream.on('data', (chunk) => { all += chunk; });
  stream.on('end', () => resolve(all));
  stream.on('error', reject);
});

// demultiplex a hijacked or plain stream into both outputs
async function both(stream) {
  const out = new PassThrough();
  const err = new PassThrough();
  docker.modem.demuxStream(stream, out, err);
  const ended = new Promise((resolve) => { stream.on('end', resolve); stream.on('close', resolve); });
  const told = [text(out), text(err)];
  await ended;
  out.end();
  err.end();
  return Promise.all(told);
}

async function run() {
  const version = await docker.version();
  assert.ok((await docker.ping()).toString() === 'OK');
  const out = new PassThrough();
  const said = text(out);
  const [result, ran] = await docker.run(image, ['sh', '-c', 'echo ran; exit 3'], out, {
    HostConfig: { ...none, AutoRemove: false },
    Tty: true,
  });
  out.end();
  assert.strictEqual(result.StatusCode, 3);
  assert.match(await said, /ran/);
  await ran.remove();
  return version.ApiVersion;
}

async function converse() {
  const made = await docker.createContainer({
    Image: image,
    name: 'node-talk',
    Cmd: ['sh', '-c', 'while read word; do echo "got $word"; echo "err $word" >&2; done; exit 7'],
    OpenStdin: true,
    StdinOnce: true,
    Labels: { by: 'node' },
    HostConfig: none,
  });
  const stream = await made.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const told = both(stream);
  const ended = made.wait({ condition: 'next-exit' });
  await made.start();
  stream.write('one\ntwo\n');
  stream.end(); // half-close: the program sees the end of its input
  assert.strictEqual((await ended).StatusCode, 7);
  assert.deepStrictEqual(await told, ['got one\ngot two\n', 'err one\nerr two\n']);
  const [listed] = await docker.listContainers({ all: true, filters: { label: ['by=node'] } });
  assert.deepStrictEqual(listed.Names, ['/node-talk']);
  const kept = await made.logs({ stdout: true, stderr: false, timestamps: false, follow: false });
  assert.match(kept.toString(), /got two/);
  await made.remove();
  await assert.rejects(made.inspect(), (error) => error.statusCode === 404 && /No such container/.test(error.json.message));
}

async function enter() {
  const made = await docker.createContainer({ Image: image, name: 'node-exec', Cmd: ['sleep', '60'], HostConfig: none });
  await made.start();
  const exec = await made.exec({ Cmd: ['sh', '-c', 'cat; echo err >&2; exit 4'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const told = both(stream);
  stream.end('typed\n');
  assert.deepStrictEqual(await told, ['typed\n', 'err\n']);
  assert.strictEqual((await exec.inspect()).ExitCode, 4);
  const stats = await made.stats({ stream: false });
  assert.ok(stats.memory_stats.usage > 0);
  assert.strictEqual((await made.top()).Processes.length, 1);
  const events = await docker.getEvents({ filters: { container: [made.id], event: ['die'] } });
  const died = new Promise((resolve) => events.once('data', (chunk) => resolve(JSON.parse(chunk))));
  await made.kill();
  assert.strictEqual((await died).Actor.Attributes.exitCode, '137');
  events.destroy();
  const archive = await made.getArchive({ path: '/bin/sh' });
  assert.ok((await text(archive)).length > 512);
  await made.remove({ force: true });
}

async function build() {
  const tar = require('node:path').join(require('node:path').dirname(process.env.DOCKERODE), 'tar-fs');
  const pack = require(tar).pack(process.argv[4]);
  const stream = await docker.buildImage(pack, { t: 'node-built:1' });
  const lines = await new Promise((resolve, reject) => {
    docker.modem.followProgress(stream, (error, found) => (error ? reject(error) : resolve(found)));
  });
  assert.ok(lines.some((line) => /Successfully tagged/.test(line.stream || '')), JSON.stringify(lines));
  const built = docker.getImage('node-built:1');
  assert.deepStrictEqual((await built.inspect()).Config.Cmd, ['true']);
  await built.tag({ repo: 'node-built', tag: '2' });
  await built.remove();
  await docker.getImage('node-built:2').remove();
}

async function store() {
  const volume = await docker.createVolume({ Name: 'node-volume', Labels: { by: 'node' } });
  assert.strictEqual((await docker.listVolumes({ filters: { label: ['by=node'] } })).Volumes.length, 1);
  await docker.getVolume(volume.name || volume.Name).remove();
  await assert.rejects(docker.getVolume('node-volume').inspect(), (error) => error.statusCode === 404);
}

(async () => {
  const version = await run();
  await converse();
  await enter();
  await build();
  await store();
  console.log(JSON.stringify({ version }));
})().catch((error) => { console.error(error); process.exit(1); });
