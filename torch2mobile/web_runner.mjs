// Runs one model with onnxruntime-web: node web_runner.mjs ORT.mjs MODEL
//
// On stdin and stdout: the length and text of a JSON, then the bytes of the tensors that it describes. The first
// answer has the model's inputs and outputs; then one answer a request.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";

console.log = console.info = console.debug = console.warn = console.error;

// A call that never ends must not outlive whoever asked for it.
new Worker(
  `setInterval(() => process.ppid === ${process.ppid} || process.kill(process.pid, 9), 1000)`,
  { eval: true },
).unref();

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, bool: Uint8Array,
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array,
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array,
};

// What a call on a pipe gives; again and again while the pipe is full or empty.
function patiently(call) {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

function read(count) {
  const bytes = Buffer.alloc(count);
  for (let at = 0; at < count; ) {
    const got = patiently(() => fs.readSync(0, bytes, at, count - at, null));
    if (got === 0) process.exit(0);
    at += got;
  }
  return bytes;
}

function readText() {
  const size = read(4).readUInt32LE();
  return JSON.parse(read(size).toString());
}

function write(bytes) {
  for (let at = 0; at < bytes.length; ) at += patiently(() => fs.writeSync(1, bytes, at));
}

function answer(found, arrays = []) {
  const text = Buffer.from(JSON.stringify(found));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(text.length);
  for (const bytes of [size, text, ...arrays]) write(bytes);
}

const ort = await import(pathToFileURL(process.argv[2]));
ort.env.wasm.numThreads = 1; // threads of WebAssembly would add up in another order
const model = process.argv[3];
let session;
try {
  const data = `${model}.data`;
  const beside = fs.existsSync(data)
    ? [{ path: path.basename(data), data: fs.readFileSync(data) }]
    : undefined;
  session = await ort.InferenceSession.create(fs.readFileSync(model), {
    executionProviders: ["wasm"], externalData: beside, logSeverityLevel: 3,
  });
} catch (error) {
  answer({ error: String(error?.message ?? error) });
  process.exit(0);
}
answer({ inputs: session.inputMetadata, outputs: session.outputMetadata });

for (;;) {
  const feeds = {};
  for (const { name, type, dims, size } of readText().feeds) {
    const bytes = read(size);
    const own = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + size);
    feeds[name] = new ort.Tensor(type, new ARRAYS[type](own), dims);
  }
  let results;
  try {
    results = await session.run(feeds);
  } catch (error) {
    answer({ error: String(error?.message ?? error) });
    continue;
  }
  const tensors = session.outputNames.map((name) => [name, results[name]]);
  const arrays = tensors.map(([, { data }]) =>
    Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  answer({
    outputs: tensors.map(([name, { type, dims }], n) =>
      ({ name, type, dims, size: arrays[n].length })),
  }, arrays);
}
