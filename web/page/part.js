/** The parts of the document. */

/** The element of an id; the document has it. @param {string} id @returns {any} */
export const part = (id) => document.getElementById(id);

/** @param {string} tag @param {string} [className] @param {string} [content] @returns {HTMLElement} */
export function element(tag, className = "", content = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = content;
  return made;
}

/** A button that submits nothing. @param {string} className @param {string} content @param {() => void} act */
export function button(className, content, act) {
  const made = /** @type {HTMLButtonElement} */ (element("button", className, content));
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

/** Makes children exactly these nodes, and touches none that stays: it keeps the focus, and is not read out again.
 * @param {Element} parent @param {Element[]} nodes in which those that stay keep their order */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const node of nodes) {
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
}

/** One of 24 hues for an id, always the same one. @param {string} id */
export function hueOf(id) {
  let hash = 2166136261; // FNV-1a
  for (let index = 0; index < id.length; index += 1) hash = Math.imul(hash ^ id.charCodeAt(index), 16777619);
  return ((hash >>> 0) % 24) * 15;
}
