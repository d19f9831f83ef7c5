/**
 * Types of Townhall's client. What it promises, and examples, are in README.md beside this file; every frame of the
 * protocol is described in docs/protocol.md of the hall.
 */

/** A place in a room's log: "everything up to here". */
export interface Position {
  /** Names one history of the offsets; opaque, and empty while nobody has spoken. */
  epoch: string;
  /** Dense, and 1 for the first event; 0 is before it. */
  offset: number;
}

/** Where a message of ours was stored. */
export interface Accepted extends Position {
  room: string;
  id: string;
}

/** Somebody. Names need not be unique; ids are. */
export interface User {
  id: string;
  name: string;
  /** What a signed token says beside the name: an avatar, a title. */
  info?: Record<string, unknown>;
}

/** What the server allows. */
export interface Limits {
  /** Bytes of a text. */
  text_bytes: number;
  /** Bytes of `data`, as JSON. */
  data_bytes: number;
  /** Rooms that one connection is in at a time. */
  rooms: number;
  /** Commands a second; 0: no limit. The client keeps to it by itself. */
  rate: number;
  /** Commands at once after a pause. */
  burst: number;
  /** For so many seconds a message that is sent again is recognised. */
  dedupe_s: number;
  /** Messages that a room keeps. */
  history: number;
}

/** The server's first frame. */
export interface Welcome {
  type: "welcome";
  /** Who we are here. */
  user: User;
  /** The replica, and this connection to it. */
  node: string;
  session: string;
  /** Seconds between signs of life; 0: there are none. */
  beat: number;
  /** The rooms that this hall has, or suggests. */
  rooms: string[];
  limits: Limits;
}

/** A room begins, or goes on. */
export interface Joined extends Position {
  type: "joined";
  room: string;
  /** So many offsets follow, up to `offset`, before what is new. */
  backlog: number;
  /** How many are here, oneself included. */
  members: number;
  /**
   * `true`: it goes on where we were. `false`: something was lost. Absent: a fresh view. Replace the view unless it is
   * `true`.
   */
  recovered?: boolean;
}

/** Something that somebody said. */
export interface Message {
  type: "message";
  room: string;
  offset: number;
  /** Unix milliseconds by the server's clock. */
  at: number;
  /** The UUID under which it was sent. */
  id: string;
  from: User;
  text: string;
  /** What the sender's program put beside the text. */
  data?: Record<string, unknown>;
}

/** Offsets that are lost for good, both ends included. */
export interface Gap {
  type: "gap";
  room: string;
  epoch: string;
  from: number;
  to: number;
}

/** Older messages. */
export interface History {
  type: "history";
  room: string;
  epoch: string;
  /**
   * Oldest first. An offset that is missing is lost; an event that is no `message` is of a type that is not known yet.
   */
  messages: Message[];
  /** Whether there are older ones. */
  more: boolean;
}

/** The answer to `who`. */
export interface Members {
  type: "members";
  room: string;
  /** How many are here. */
  count: number;
  /** Of them 200 at most. */
  members: User[];
}

/** Somebody came or went. */
export interface Presence {
  type: "presence";
  room: string;
  /** How many are here now. */
  count: number;
  /** Absent in rooms with more than 200 members. Who has another name now is in `joined` again, under the same id. */
  joined?: User[];
  left?: User[];
}

/** Somebody types; to be shown for 5 s. */
export interface Typing {
  type: "typing";
  room: string;
  from: User;
}

/** A refusal, as the server words it. */
export interface ErrorFrame {
  type: "error";
  code: string;
  message: string;
  room?: string;
  id?: string;
  retry_after_ms?: number;
}

/** `closed`: not wanted, or never to come back. `waiting`: between two attempts to connect. */
export type State = "closed" | "connecting" | "open" | "waiting";

export interface StateDetail {
  state: State;
  /**
   * Why a connection ended: a close code as the server or the browser gave it. Absent where there was none to be had.
   */
  code?: number;
  /** In the server's words; or why there was no token, or no socket. */
  reason?: string;
  /** When `waiting`: how long. */
  retry_ms?: number;
}

/** A message that waits to be accepted. */
export interface PendingMessage {
  room: string;
  id: string;
  text: string;
  data?: Record<string, unknown>;
  /** When its id was first used, in Unix milliseconds. */
  made: number;
}

/** What a program needs of the class `WebSocket`; that of browsers and that of npm's `ws` have it. */
export type WebSocketClass = new (url: string, protocols?: string[]) => {
  onmessage: any;
  onclose: any;
  onerror: any;
  send(data: string): void;
  close(code?: number, reason?: string): void;
};

export interface Options {
  /** How others see us; without it, our address. */
  name?: string;
  /**
   * A secret UUID that makes a guest the same person after a reconnection. One is made for this object's lifetime when
   * it is absent; who wants to be the same person tomorrow keeps one.
   */
  key?: string;
  /**
   * Asked before every attempt to connect; when it fails, so has the attempt, and the next one asks again. A ticket is
   * for a name: that beside it, or `name`.
   */
  getToken?: () => string | { name?: string; token: string } | Promise<string | { name?: string; token: string }>;
  /** The class to use where there is no global one, as in Node before 22. */
  WebSocket?: WebSocketClass;
}

export interface JoinOptions {
  /** How many messages to replay where there is nothing to resume: 50, and at most 200. */
  last?: number;
  /**
   * A position that was kept from an earlier life: everything since is replayed, if it is still there
   * (`joined.recovered`).
   */
  after?: Position | null;
  /** Whether to keep the list of who is here, see `members` and the event of that name. */
  members?: boolean;
}

export interface SendOptions {
  /** Rides on the message: a JSON object. */
  data?: object;
  /** Of a message that failed, to send it again as the same one. */
  id?: string;
  /** When that id was first used, in Unix milliseconds, if it was in an earlier life. */
  made?: number;
}

export interface HistoryOptions {
  /** An offset, exclusive; absent: from the newest. */
  before?: number;
  /** 50, and at most 200. */
  limit?: number;
}

/** The events that a {@link Townhall} dispatches. */
export interface TownhallEventMap {
  /** The connection's state changed. */
  state: CustomEvent<StateDetail>;
  /** The server let us in. */
  welcome: CustomEvent<Welcome>;
  /** A room begins here, or goes on. */
  joined: CustomEvent<Joined>;
  /** The backlog that `joined` announced has been dispatched: what follows is new. */
  caughtup: CustomEvent<Position & { room: string }>;
  /** Somebody said something. */
  message: CustomEvent<Message>;
  /** Some messages are lost for good. */
  gap: CustomEvent<Gap>;
  /** A frame of a type that this version does not know. */
  event: CustomEvent<Record<string, unknown>>;
  /** Somebody came or went, as the server tells it. */
  presence: CustomEvent<Presence>;
  /** Who is here is not what it was, in a room that was joined with `members`. */
  members: CustomEvent<{ room: string; count: number; members: User[] }>;
  /** Somebody types; show it for 5 s. */
  typing: CustomEvent<Typing>;
  /** A message of ours is stored. */
  accepted: CustomEvent<Accepted>;
  /** A message of ours was refused or given up. */
  failed: CustomEvent<{ room: string; id: string; error: TownhallError }>;
  /** A join was refused for good; the room is forgotten. */
  refused: CustomEvent<ErrorFrame>;
  /** The server confirmed `leave`. */
  left: CustomEvent<{ type: "left"; room: string }>;
  /** This replica will be left in `after_ms`, and another found. Nothing needs to be done. */
  reconnect: CustomEvent<{ type: "reconnect"; after_ms: number }>;
  /** An error that belongs to none of the above. */
  error: CustomEvent<ErrorFrame>;
}

/** What hears an event: a function or, as everywhere in the DOM, an object. */
export type Listener<K extends keyof TownhallEventMap> =
  | ((this: Townhall, event: TownhallEventMap[K]) => void)
  | { handleEvent(event: TownhallEventMap[K]): void };

/** Codes of our own: why something did not happen although the server refused nothing. */
export type ClientErrorCode = "offline" | "closed" | "left" | "expired" | "too_many" | "other_user" | "banned" | "kicked";
/** Codes of the server. */
export type ServerErrorCode =
  | "bad_frame" | "unknown_type" | "bad_room" | "bad_name" | "not_joined" | "too_long" | "rate_limited" | "muted"
  | "forbidden" | "unauthorized" | "unavailable" | "too_many_rooms";

/** Why something that was asked for did not happen. */
export class TownhallError extends Error {
  constructor(code: string, message: string, about?: { room?: string; id?: string; retry_after_ms?: number });
  /** A later server may have others. */
  code: ClientErrorCode | ServerErrorCode | (string & {});
  room: string | undefined;
  id: string | undefined;
  retry_after_ms: number | undefined;
}

/** A random UUID, also where the page is not secure and `crypto.randomUUID` is missing. */
export function uuid(): string;

/** One connection to a hall, and any number of rooms: nothing is lost, and nothing comes twice. */
export class Townhall extends EventTarget {
  /**
   * Connects nowhere yet: see {@link connect}.
   *
   * @param url of the hall's `/ws`; relative to the page where there is one, `http` counts as `ws`
   * @throws TypeError where that is no address of a hall, or there is no WebSocket
   */
  constructor(url: string | URL, options?: Options);

  readonly state: State;
  /** Who we are here, once the server has said so. */
  readonly user: User | null;
  /** The last `welcome`. */
  readonly welcome: Welcome | null;
  /** Names of the rooms that are joined, or will be. */
  readonly rooms: string[];
  /** What was said and not accepted yet, in order. */
  readonly pending: PendingMessage[];

  /** Connects, and stays connected. While it waits to try again: tries now. Otherwise a second call changes nothing. */
  connect(): void;
  /** Leaves for good. What was not accepted fails with `closed`; `connect` comes back to the same rooms. */
  close(): void;
  /**
   * Changes how others see us: a short reconnection as the same person, under which nothing is lost. For guests: who
   * has a token is called as that says.
   */
  rename(name: string): void;

  /**
   * Joins a room, now and after every reconnection. In a room that is joined already it begins anew: the last messages
   * are replayed once more.
   *
   * @throws TypeError where an option has the wrong shape
   */
  join(name: string, options?: JoinOptions): void;
  /** Leaves a room. Messages to it that were not accepted fail with `left`. */
  leave(name: string): void;
  /** Where we are in a room; `null` before it was joined. */
  position(room: string): Position | null;

  /**
   * Says something. It may be called at any time after `connect`: what cannot be sent now waits for the line and the
   * room.
   *
   * @returns where it was stored; rejected with a {@link TownhallError} if it was refused or given up, as `failed`
   *   tells, too
   */
  send(room: string, text: string, options?: SendOptions): Promise<Accepted>;
  /** Says that we are typing, at most once in 3 s and a room; where it cannot be said now, it is not. */
  typing(room: string): void;

  /**
   * Reads older messages. They are returned, not dispatched, and move no position.
   *
   * @returns rejected with `offline` when the connection is not there or is lost, with `unavailable` when there is no
   *   answer for 10 s, else with the server's refusal
   */
  history(room: string, options?: HistoryOptions): Promise<History>;
  /** Asks who is in a room; rejected as `history` is. */
  who(room: string): Promise<Members>;
  /**
   * Who is in a room that was joined with `members`, as far as is known; `null` before anything is. The list is shorter
   * than `count` while it is being asked for, and empty where there are more than 200.
   */
  members(room: string): { count: number; members: User[] } | null;

  addEventListener<K extends keyof TownhallEventMap>(
    type: K,
    listener: Listener<K> | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof TownhallEventMap>(
    type: K,
    listener: Listener<K> | null,
    options?: boolean | EventListenerOptions,
  ): void;
}
