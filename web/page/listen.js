/** What the SDK tells, without the envelope of an event. */

/**
 * @param {import("../client.js").Townhall} hall
 * @returns {(type: keyof import("../client.js").TownhallEventMap, listener: (detail: any) => void) => void}
 */
export function to(hall) {
  return (type, listener) => hall.addEventListener(type, (event) => listener(/** @type {CustomEvent} */ (event).detail));
}

/** The same of one room: that which it is when it is told. @param {import("../client.js").Townhall} hall @param {() => string} room */
export function inside(hall, room) {
  /** @type {ReturnType<typeof to>} */
  return (type, listener) => to(hall)(type, (detail) => detail.room === room() && listener(detail));
}
