// The connection of a live tap: it opens the socket, comes back where it was
// after a loss, notices a silent console, and finds out why it is refused. No
// DOM here, so that it can be tested.
import { backoff } from "./tapbuffer.js";

/**
 * @typedef {"starting" | "running" | "lost" | "refused" | "ended"} Kind
 * @typedef {{kind: Kind, words: string, reason: string, until: number}} Status until: when it tries again, 0 when it does not
 * @typedef {{onopen: (() => void) | null, onmessage: ((e: {data: string}) => void) | null, onclose: ((e: {code: number, reason: string}) => void) | null, close(code?: number): void}} Socket
 * @typedef {{open(url: string): Socket, ask(url: string): Promise<{status: number, detail: string, after: number}>, now(): number, later(f: () => void, ms: number): number, never(timer: number): void, random(): number}} World
 */

const away = 4001; // a close code: the tab is hidden, this reader comes back
const revoked = 4401;
const silence = 16000; // three frames of a quiet tap, and a little
const refusedAgain = 15000;

/** @type {World} */
export const browser = {
  open: (url) => /** @type {Socket} */ (/** @type {unknown} */ (new WebSocket(url))),
  // A browser hides why a socket was refused; a plain request is told.
  ask: async (url) => {
    const answer = await fetch(url, { headers: { Accept: "application/problem+json" } });
    const problem = await answer.json().catch(() => ({}));
    return { status: answer.status, detail: String(problem.detail ?? ""), after: Number(answer.headers.get("Retry-After")) || 0 };
  },
  now: () => Date.now(),
  later: (f, ms) => window.setTimeout(f, ms),
  never: (timer) => clearTimeout(timer),
  random: () => Math.random(),
};

export class TapLink {
  /**
   * @param {string} url of the socket, http or https
   * @param {(frame: import("./tapbuffer.js").Frame) => void} onFrame
   * @param {(status: Status) => void} onStatus
   * @param {World} world
   */
  constructor(url, onFrame, onStatus, world = browser) {
    this.url = url;
    this.onFrame = onFrame;
    this.onStatus = onStatus;
    this.world = world;
    this.resume = "";
    this.attempt = 0;
    this.timer = 0;
    this.watch = 0;
    /** @type {Socket | null} */
    this.socket = null;
    /** @type {Status} */
    this.status = { kind: "starting", words: "Connecting", reason: "", until: 0 };
  }

  /**
   * @param {Kind} kind
   * @param {string} words
   * @param {string} [reason]
   * @param {number} [wait]
   */
  say(kind, words, reason = "", wait = 0) {
    this.status = { kind, words, reason, until: wait > 0 ? this.world.now() + wait : 0 };
    this.onStatus(this.status);
  }

  connect() {
    this.world.never(this.timer);
    if (this.socket) return;
    const url = new URL(this.url);
    if (this.resume) url.searchParams.set("resume", this.resume);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (this.attempt === 0) this.say("starting", "Connecting");
    const s = this.world.open(url.href);
    let opened = false;
    this.socket = s;
    s.onopen = () => {
      if (this.socket !== s) return;
      opened = true;
      this.attempt = 0;
      this.say("running", "Running");
      this.listen();
    };
    s.onmessage = (e) => {
      if (this.socket !== s) return;
      this.listen();
      /** @type {import("./tapbuffer.js").Frame} */
      const frame = JSON.parse(e.data);
      if (frame.resume) this.resume = frame.resume;
      this.onFrame(frame);
    };
    s.onclose = (e) => {
      if (this.socket !== s) return;
      this.socket = null;
      this.world.never(this.watch);
      if (e.code === revoked) this.say("ended", "Ended", e.reason || "You may not watch this any more.");
      else if (opened) this.again(e.code === 1001 ? e.reason : "");
      else this.refused();
    };
  }

  /** Expects the next frame in time. */
  listen() {
    this.world.never(this.watch);
    this.watch = this.world.later(() => {
      const s = this.socket;
      if (!s) return;
      this.socket = null;
      s.close(away);
      this.again(`No contact for ${Math.round(silence / 1000)} s`);
    }, silence);
  }

  /** @param {string} [reason] */
  again(reason = "") {
    this.attempt++;
    const wait = backoff(this.attempt, this.world.random);
    this.say("lost", this.attempt > 2 ? "No contact" : "Connection lost", reason, wait);
    this.timer = this.world.later(() => this.connect(), wait);
  }

  async refused() {
    const attempt = ++this.attempt;
    let told;
    try {
      told = await this.world.ask(this.url);
    } catch {
      told = null; // nobody there at all
    }
    if (this.socket || this.attempt !== attempt) return;
    this.attempt--;
    if (!told || told.status === 426 || told.status >= 500 && told.status !== 503) {
      this.again();
    } else if (told.status === 429 || told.status === 503) {
      const wait = Math.max(refusedAgain, told.after * 1000);
      this.attempt++;
      this.say("refused", "Refused", told.detail.replace(/: (overloaded|unavailable)$/, ""), wait);
      this.timer = this.world.later(() => this.connect(), wait);
    } else {
      this.say(told.status === 401 ? "ended" : "refused", told.status === 401 ? "Ended" : "Refused", told.detail || "The console refuses this tap.");
    }
  }

  /** Tries again at once, whatever was said before. */
  retry() {
    this.attempt = 0;
    this.connect();
  }

  /** @param {boolean} comesBack */
  leave(comesBack) {
    this.world.never(this.timer);
    this.world.never(this.watch);
    this.attempt++; // an answer that is under way means nothing any more
    const s = this.socket;
    this.socket = null;
    s?.close(comesBack ? away : 1000);
  }
}
