/** Which names a hall takes: the same rule as its own, so that none is refused where no page can read why. */

const MOST = 32;

/** What ends a name at the doors without JSON, and what cannot be told from it. */
const COLON = /[:\u02F8\u0589\u05C3\u2236\uA789\uFE13\uFE55\uFF1A]/u;
/** What turns lines round or breaks them. */
const CONTROL = /[\p{Cc}\u2028\u2029\u202A-\u202E\u2066-\u2069]/u;
/** What takes no ink; joiners and selectors have rules of their own. */
const UNSEEN = /(?![\u200C\u200D]|\p{Variation_Selector})[\p{Default_Ignorable_Code_Point}\u2800\uFFF0-\uFFFB]/u;
/** A joiner with nothing to join, a selector with nothing to vary, a mark on what is not the name's. */
const LOOSE = /^[\p{M}\u200C\u200D]|[\0-\u052F\u1E00-\u218F\s][\u200C\u200D]|(?![\xA9\xAE\u203C\u2049\u2122])[\0-\u052F\u1E00-\u218F\s]\p{Variation_Selector}|\p{Variation_Selector}{2}|^\p{Variation_Selector}|[\u200C\u200D]$/u;
const MARKED = /^[!/~]/;

/** @param {string} typed @returns {string | null} the name as the hall will have it; `null` where it would refuse it; empty for none */
export function tidy(typed) {
  const name = typed.trim().normalize("NFC");
  const bad = [COLON, CONTROL, UNSEEN, LOOSE, MARKED].some((rule) => rule.test(name));
  return bad || [...name].length > MOST ? null : name;
}
