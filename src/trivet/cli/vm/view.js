// A machine's screen by RFB (RFC 6143) over a websocket: raw, copied and hextile rectangles, sizes that change,
// keys by their places on the keyboard (QEMU's extended key events), an absolute pointer.
"use strict";
const canvas = document.getElementById("screen"), state = document.getElementById("state");
const picture = canvas.getContext("2d", { alpha: false });
const RAW = 0, COPY = 1, HEXTILE = 5, SIZE = -223, KEYS = -258;

class Incoming {
  constructor(socket) {
    this.pieces = [];
    this.length = 0;
    this.wake = () => {};
    socket.addEventListener("message", event => {
      const piece = new Uint8Array(event.data);
      this.pieces.push(piece);
      this.length += piece.length;
      this.wake();
    });
  }
  async bytes(count) {
    while (this.length < count) await new Promise(wake => { this.wake = wake });
    const taken = new Uint8Array(count);
    for (let at = 0; at < count;) {
      const piece = this.pieces[0], part = piece.subarray(0, count - at);
      taken.set(part, at);
      at += part.length;
      if (part.length === piece.length) this.pieces.shift();
      else this.pieces[0] = piece.subarray(part.length);
    }
    this.length -= count;
    return taken;
  }
  async view(count) { return new DataView((await this.bytes(count)).buffer) }
  async byte() { return (await this.bytes(1))[0] }
  async text(count) { return new TextDecoder().decode(await this.bytes(count)) }
}

let socket, ready = false, known = false;

function send(...bytes) { socket.send(Uint8Array.from(bytes)) }
function short(value) { return [value >> 8 & 255, value & 255] }
function long(value) { return [...short(value >>> 16), ...short(value)] }

async function greet(from) {
  await from.bytes(12);
  socket.send(new TextEncoder().encode("RFB 003.008\n"));
  const kinds = await from.bytes(await from.byte());
  if (!kinds.includes(1)) throw new Error("the machine asks for a password");
  send(1);
  if ((await from.view(4)).getUint32(0)) throw new Error("the machine let nobody in");
  send(1);  // others may look on
  const about = await from.view(24);
  resize(about.getUint16(0), about.getUint16(2));
  document.title = await from.text(about.getUint32(20)) || "machine";
  send(0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0);  // as ImageData has it: R, G, B, and one
  const wanted = [HEXTILE, COPY, RAW, SIZE, KEYS];
  send(2, 0, ...short(wanted.length), ...wanted.flatMap(long));
}

function resize(width, height) { canvas.width = width; canvas.height = height }
function ask(part) { send(3, part, 0, 0, 0, 0, ...short(canvas.width), ...short(canvas.height)) }

function paint(pixels, x, y, width, height) {
  for (let at = 3; at < pixels.length; at += 4) pixels[at] = 255;
  picture.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer, 0, pixels.length), width, height), x, y);
}

async function colour(from) { const [red, green, blue] = await from.bytes(4); return `rgb(${red},${green},${blue})` }

async function tiles(from, left, top, width, height) {
  let back = "#000", front = "#fff";
  for (let y = 0; y < height; y += 16) for (let x = 0; x < width; x += 16) {
    const wide = Math.min(16, width - x), high = Math.min(16, height - y), kind = await from.byte();
    if (kind & 1) { paint(await from.bytes(wide * high * 4), left + x, top + y, wide, high); continue }
    if (kind & 2) back = await colour(from);
    if (kind & 4) front = await colour(from);
    picture.fillStyle = back;
    picture.fillRect(left + x, top + y, wide, high);
    for (let count = kind & 8 ? await from.byte() : 0; count; count--) {
      picture.fillStyle = kind & 16 ? await colour(from) : front;
      const [place, size] = await from.bytes(2);
      picture.fillRect(left + x + (place >> 4), top + y + (place & 15), (size >> 4) + 1, (size & 15) + 1);
    }
  }
}

async function update(from) {
  const count = (await from.view(3)).getUint16(1);
  for (let each = 0; each < count; each++) {
    const about = await from.view(12), kind = about.getInt32(8);
    const [x, y, width, height] = [0, 2, 4, 6].map(at => about.getUint16(at));
    if (kind === RAW) { if (width * height) paint(await from.bytes(width * height * 4), x, y, width, height) }
    else if (kind === COPY) {
      const source = await from.view(4);
      picture.drawImage(canvas, source.getUint16(0), source.getUint16(2), width, height, x, y, width, height);
    }
    else if (kind === HEXTILE) await tiles(from, x, y, width, height);
    else if (kind === SIZE) resize(width, height);
    else if (kind === KEYS) known = true;
    else throw new Error(`the machine draws in a way that wasn't asked for: ${kind}`);
  }
}

async function look() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/screen`);
  socket.binaryType = "arraybuffer";
  const from = new Incoming(socket);
  const gone = new Promise((_, fail) => socket.addEventListener("close", () => fail(new Error("the connection is lost"))));
  async function follow() {
    await greet(from);
    ready = true;
    state.textContent = "";
    ask(0);
    for (;;) {
      const kind = await from.byte();
      if (kind === 0) { await update(from); ask(1) }
      else if (kind === 1) await from.bytes(6 * (await from.view(5)).getUint16(3));
      else if (kind === 3) await from.bytes(Math.abs((await from.view(7)).getInt32(3)));  // its clipboard
      else if (kind !== 2) throw new Error(`the machine says something unknown: ${kind}`);
    }
  }
  try { await Promise.race([follow(), gone]) } catch (error) { state.textContent = error.message }
  ready = false;
  socket.close();
  setTimeout(look, 2000);
}

// --- keyboard: places of keys as an XT keyboard numbers them, 0x80 added to those behind 0xe0 -------------------------
const rows = {
  1: "Escape Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal Backspace Tab",
  16: "KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight Enter ControlLeft",
  30: "KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backquote ShiftLeft Backslash",
  44: "KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash ShiftRight NumpadMultiply AltLeft Space CapsLock",
  59: "F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NumLock ScrollLock Numpad7 Numpad8 Numpad9 NumpadSubtract Numpad4 Numpad5 Numpad6 "
    + "NumpadAdd Numpad1 Numpad2 Numpad3 Numpad0 NumpadDecimal",
  86: "IntlBackslash F11 F12",
  156: "NumpadEnter ControlRight", 181: "NumpadDivide", 183: "PrintScreen AltRight",
  199: "Home ArrowUp PageUp", 203: "ArrowLeft", 205: "ArrowRight", 207: "End ArrowDown PageDown Insert Delete",
  219: "MetaLeft MetaRight ContextMenu",
};
const places = {};
for (const [first, names] of Object.entries(rows)) names.split(" ").forEach((name, at) => { places[name] = Number(first) + at });
const held = new Set();

function press(code, down) {
  if (!ready || !known || !(code in places)) return;
  send(255, 0, ...short(down ? 1 : 0), ...long(0), ...long(places[code]));
  if (down) held.add(code); else held.delete(code);
}
canvas.addEventListener("keydown", event => { press(event.code, true); event.preventDefault() });
canvas.addEventListener("keyup", event => { press(event.code, false); event.preventDefault() });
canvas.addEventListener("blur", () => { for (const code of [...held]) press(code, false) });

// --- mouse ---------------------------------------------------------------------------------------------------------
let buttons = 0;
function point(event, mask) {
  if (!ready) return;
  const box = canvas.getBoundingClientRect();
  const place = (at, shown, real) => Math.max(0, Math.min(real - 1, Math.floor(at / shown * real)));
  send(5, mask, ...short(place(event.clientX - box.left, box.width, canvas.width)),
    ...short(place(event.clientY - box.top, box.height, canvas.height)));
}
canvas.addEventListener("mousemove", event => point(event, buttons));
canvas.addEventListener("mousedown", event => {
  canvas.focus();
  point(event, buttons |= 1 << event.button);
  event.preventDefault();
});
window.addEventListener("mouseup", event => { if (buttons & 1 << event.button) point(event, buttons &= ~(1 << event.button)) });
canvas.addEventListener("contextmenu", event => event.preventDefault());
canvas.addEventListener("wheel", event => {
  const turned = event.deltaY < 0 ? 8 : 16;
  point(event, buttons | turned);
  point(event, buttons);
  event.preventDefault();
}, { passive: false });

// --- what the buttons do ---------------------------------------------------------------------------------------------
function tell(body) {
  fetch("keys", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })
    .then(answer => { state.textContent = answer.ok ? "" : "the machine did not take that" })
    .catch(() => { state.textContent = "the connection is lost" });
  canvas.focus();
}
for (const button of document.querySelectorAll("button[data-keys]"))
  button.addEventListener("click", () => tell({ keys: [button.dataset.keys] }));
document.getElementById("paste").addEventListener("click", async () => {
  const text = await navigator.clipboard.readText().catch(() => prompt("Text to type"));
  if (text) tell({ text });
});
document.getElementById("picture").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = canvas.toDataURL("image/png");
  link.download = "screen.png";
  link.click();
});
document.getElementById("full").addEventListener("click", () => { canvas.requestFullscreen(); canvas.focus() });
look();
canvas.focus();
