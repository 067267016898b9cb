// The live feed: one WebSocket, opened again whenever it ends, continued where it stopped.

const WANTED = [
  "incident.created", "incident.updated", "enrichment.completed", "action.proposed", "action.approved", "action.denied", "action.expired",
  "action.executed", "notification.failed", "module.health_changed",
];
const SIGN_OF_LIFE = 10_000;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;
/** Our session does not hold any more. */
const UNAUTHENTICATED = 4401;

export class Feed {
  /** `tell`: `{ready(resumed), event(event), resync(), down(why), refused()}`. */
  constructor(tell) {
    this.tell = tell;
    this.socket = null;
    this.last = null;
    this.wait = FIRST_WAIT;
    this.timer = null;
    this.stopped = true;
    this.nextTry = null;
    const now = () => this.now();
    addEventListener("online", now);
    addEventListener("offline", () => this.lost("this computer is offline"));
    document.addEventListener("visibilitychange", () => { if (!document.hidden) now(); });
  }

  start() {
    this.stopped = false;
    this.last = null;
    this.open();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.drop();
  }

  /** Tries at once, if it is not connected. */
  now() {
    if (this.stopped || this.socket) return;
    clearTimeout(this.timer);
    this.open();
  }

  drop() {
    const socket = this.socket;
    this.socket = null;
    clearInterval(this.pulse);
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
    }
  }

  open() {
    this.drop();
    this.nextTry = null;
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);
    this.socket = socket;
    this.heard = Date.now();
    socket.onmessage = (message) => this.hear(message.data);
    socket.onclose = (event) => {
      if (event.code === UNAUTHENTICATED) {
        this.drop();
        this.tell.refused();
        this.again("the session is over");
      } else {
        this.lost(event.reason);
      }
    };
    // a connection that died without a word is told from a quiet one by asking
    this.pulse = setInterval(() => {
      if (Date.now() - this.heard > 2.5 * SIGN_OF_LIFE) this.lost("no sign of life");
      else if (socket.readyState === WebSocket.OPEN) this.say({ action: "ping" });
    }, SIGN_OF_LIFE);
  }

  say(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  hear(text) {
    this.heard = Date.now();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    switch (message.type) {
      case "welcome": {
        const known = message.subscribableEvents ?? WANTED;
        this.resumed = this.last !== null;
        const subscribe = { action: "subscribe", events: WANTED.filter((event) => known.includes(event)) };
        if (this.resumed) subscribe.after = this.last;
        else this.last = message.lastSeq ?? null;
        this.say(subscribe);
        break;
      }
      case "subscribed":
        this.wait = FIRST_WAIT;
        this.tell.ready(this.resumed);
        break;
      case "event":
        this.last = Math.max(this.last ?? 0, message.seq);
        this.tell.event(message);
        break;
      case "resync_required":
        this.last = message.from;
        this.tell.resync();
        break;
      case "error":
        console.warn("the live feed:", message.code, message.message);
        break;
      default:
    }
  }

  lost(why) {
    this.drop();
    this.again(why);
  }

  again(why) {
    if (this.stopped) return;
    const wait = this.wait * (0.75 + Math.random() / 2);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
    this.nextTry = Date.now() + wait;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), wait);
    this.tell.down(why);
  }
}
