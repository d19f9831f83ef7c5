/** The tutorial's test page, served at `/echo`: whatever is sent comes back. */

/** Older lines make room for newer ones. */
const OUTPUT_LINES = 1000;

const input = /** @type {HTMLInputElement} */ (document.getElementById("input"));
const output = /** @type {HTMLElement} */ (document.getElementById("output"));

const url = new URL("echo", location.href);
url.protocol = url.protocol.replace("http", "ws");
const socket = new WebSocket(url);
socket.onopen = () => show("Status: Connected");
socket.onmessage = ({ data }) => show(`Server: ${data}`);
socket.onclose = () => show("Connection closed.");

/** @param {string} line */
function show(line) {
  output.append(`${line}\n`);
  if (output.childNodes.length > OUTPUT_LINES) output.firstChild?.remove();
}

function send() {
  if (socket.readyState !== WebSocket.OPEN) return; // What was typed stays.
  socket.send(input.value);
  input.value = "";
}

/** @type {HTMLElement} */ (document.getElementById("send")).addEventListener("click", send);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.isComposing && event.keyCode !== 229) send();
});
