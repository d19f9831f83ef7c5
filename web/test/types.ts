// Every member and every event once, as a program in TypeScript uses them; and what must not compile. Read by
// `tsc --strict`, never run.

import { Townhall, TownhallError, uuid } from "townhall-client";
import type {
  Accepted, ClientErrorCode, ErrorFrame, Gap, History, HistoryOptions, JoinOptions, Joined, Limits, Listener, Members,
  Message, Options, PendingMessage, Position, Presence, SendOptions, ServerErrorCode, State, StateDetail, TownhallEventMap, Typing, User, Welcome, WebSocketClass,
} from "townhall-client";

declare class Socket {
  constructor(url: string | URL, protocols?: string | string[], more?: object);
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  onerror: ((event: { error: unknown }) => void) | null;
  send(data: string | Uint8Array): void;
  close(code?: number, reason?: string): void;
}
const socket: WebSocketClass = Socket;
const options: Options = { name: "lewin", key: uuid(), getToken: async () => ({ name: "lewin", token: "t" }), WebSocket: socket };
const hall = new Townhall(new URL("wss://hall.example/ws"), options);
new Townhall("ws", { WebSocket, getToken: () => "t" });
new Townhall("ws");

const state: State = hall.state;
const user: User | null = hall.user;
const welcome: Welcome | null = hall.welcome;
const limits: Limits | undefined = hall.welcome?.limits;
const rooms: string[] = hall.rooms;
const pending: PendingMessage[] = hall.pending;
const position: Position | null = hall.position("lobby");
const here: { count: number; members: User[] } | null = hall.members("lobby");
const nothing: void = hall.connect();
hall.close();
hall.rename("lewin");
const join: JoinOptions = { last: 0, after: position, members: true };
hall.join("lobby");
hall.join("lobby", join);
hall.leave("lobby");
hall.typing("lobby");
const sending: SendOptions = { data: { mood: "good" }, id: uuid(), made: Date.now() };
const accepted: Promise<Accepted> = hall.send("lobby", "hello", sending);
for (const { room, text, ...again } of pending) hall.send(room, text, again);
const asking: HistoryOptions = { before: 7, limit: 50 };
const history: Promise<History> = hall.history("lobby", asking);
const who: Promise<Members> = hall.who("lobby");

hall.addEventListener("state", ({ detail }) => {
  const { state, code, reason, retry_ms }: StateDetail = detail;
  return [state satisfies State, code?.toFixed(), reason?.length, retry_ms?.toFixed()];
});
hall.addEventListener("welcome", ({ detail }) => detail satisfies Welcome);
hall.addEventListener("joined", ({ detail }) => [detail satisfies Joined, detail.recovered === false, detail.offset - detail.backlog]);
hall.addEventListener("caughtup", ({ detail }) => detail satisfies Position & { room: string });
hall.addEventListener("message", ({ detail }) => [detail satisfies Message, detail.text.length, detail.from.info?.avatar, detail.data?.mood]);
hall.addEventListener("gap", ({ detail }) => [detail satisfies Gap, detail.to - detail.from]);
hall.addEventListener("event", ({ detail }) => detail.type);
hall.addEventListener("presence", ({ detail }) => [detail satisfies Presence, detail.joined?.map(({ name }) => name)]);
hall.addEventListener("members", ({ detail }) => detail.members.map(({ id }) => id.length + detail.count));
hall.addEventListener("typing", ({ detail }) => detail satisfies Typing);
hall.addEventListener("accepted", ({ detail }) => detail satisfies Accepted);
hall.addEventListener("failed", ({ detail: { room, id, error } }) => [room.length, id.length, error satisfies TownhallError]);
hall.addEventListener("refused", ({ detail }) => detail satisfies ErrorFrame);
hall.addEventListener("left", ({ detail }) => detail.room.length);
hall.addEventListener("reconnect", ({ detail }) => detail.after_ms.toFixed());
hall.addEventListener("error", ({ detail }) => detail.code.length, { once: true });
hall.addEventListener("message", { handleEvent: ({ detail }) => detail.text });
hall.addEventListener("message", function () { return this.state; });
const listener: Listener<"message"> = ({ detail }: TownhallEventMap["message"]) => detail.text;
hall.addEventListener("message", listener);
hall.removeEventListener("message", listener);

hall.send("lobby", "hello").catch((error: TownhallError) => {
  const ours: ClientErrorCode = "expired", theirs: ServerErrorCode = "muted";
  return [error.code === ours || error.code === theirs || error.code === "of a later version", error.message, error.room, error.id, error.retry_after_ms];
});
new TownhallError("closed", "over", { room: "lobby" }) satisfies Error;

// @ts-expect-error: there is no such event.
hall.addEventListener("mesage", () => {});
// @ts-expect-error: a message's text is no number.
hall.addEventListener("message", ({ detail }) => detail.text.toFixed());
// @ts-expect-error: nor is the name of who said it.
hall.addEventListener("message", ({ detail }) => detail.from.name.toFixed());
// @ts-expect-error: a name is no number.
new Townhall("ws", { name: 7 });
// @ts-expect-error: there is no such option.
new Townhall("ws", { nmae: "lewin" });
// @ts-expect-error: a hall is somewhere.
new Townhall();
// @ts-expect-error: a token is asked for, not given.
new Townhall("ws", { getToken: "t" });
// @ts-expect-error: a class, and not one of its objects.
new Townhall("ws", { WebSocket: new WebSocket("ws://hall.example") });
// @ts-expect-error: the state is told, not made.
hall.state = "open";
// @ts-expect-error: a position has both.
hall.join("lobby", { after: { offset: 7 } });
// @ts-expect-error: there is no such option.
hall.join("lobby", { first: 50 });
// @ts-expect-error: a text is a string.
hall.send("lobby", 7);
// @ts-expect-error: data is an object.
hall.send("lobby", "hello", { data: "good" });
// @ts-expect-error: the place is promised, not there.
hall.send("lobby", "hello").offset;
// @ts-expect-error: before the welcome we are nobody.
hall.user.name;
// @ts-expect-error: `info` is whatever the token says.
hall.addEventListener("message", ({ detail }) => detail.from.info.avatar.length);
