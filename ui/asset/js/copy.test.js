import assert from "node:assert/strict";
import test from "node:test";
import { exactText } from "./copy.js";

test("text is copied exactly, byte order mark included, and bytes are refused", () => {
  const bytes = new TextEncoder().encode('\ufeff{"n": 9007199254740993127}\r\n');
  assert.equal(exactText(bytes.buffer), '\ufeff{"n": 9007199254740993127}\r\n');
  assert.equal(exactText(new Uint8Array([0x83, 0xa2]).buffer), null);
});
