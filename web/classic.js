/**
 * The tutorial's page, served at `/chatroom`: what is said comes as plain lines, what is typed goes out as it is. It does not
 * reconnect, and says so. `?name=&token=` let a site hand over who has logged in there; a name alone is a guest's.
 */

/** Older text makes room for newer: a page that is left open must not grow for ever. */
const OUTPUT_CHARS = 500_000;

const output = /** @type {HTMLTextAreaElement} */ (document.getElementById("output"));
const input = /** @type {HTMLTextAreaElement} */ (document.getElementById("input"));
const buttonSend = /** @type {HTMLButtonElement} */ (document.getElementById("buttonSend"));

const socket = new WebSocket(address());
socket.onopen = () => show("[提示] 成功连接服务器");
socket.onmessage = ({ data }) => show(data);
socket.onclose = () => show("[提示] 与服务器断开连接，请刷新……");

function address() {
  const query = new URLSearchParams(location.search);
  const name = query.get("name");
  const token = query.get("token");
  const url = new URL("chatroom/ws", location.href);
  if (name && token) url.pathname += `/${encodeURIComponent(name)}/${encodeURIComponent(token)}`;
  else if (name) url.search = new URLSearchParams({ name }).toString();
  url.protocol = url.protocol.replace("http", "ws");
  return url;
}

/** @param {string} line */
function show(line) {
  const shown = `${output.value}${line}\n`;
  output.value = shown.length > OUTPUT_CHARS ? shown.slice(shown.indexOf("\n", shown.length - OUTPUT_CHARS) + 1) : shown;
  output.scrollTop = output.scrollHeight;
}

function send() {
  if (socket.readyState !== WebSocket.OPEN) return; // What was typed stays.
  if (input.value) socket.send(input.value);
  input.value = "";
}

buttonSend.addEventListener("click", send);
input.addEventListener("keydown", (event) => {
  // The Enter that ends a composition chooses words and sends nothing; Safari tells it by 229 only.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});
