// What is given with `-e NAME=VALUE`, checked before anything begins.

function refuse(name, value, rule) {
  throw new Error(`${name}=${value}: ${rule}`);
}

export function number(name, otherwise, least = 1) {
  const given = __ENV[name] || String(otherwise);
  const value = Number(given);
  return Number.isFinite(value) && value >= least ? value : refuse(name, given, `a number, ${least} or more`);
}

export function whole(name, otherwise, least = 1) {
  const value = number(name, otherwise, least);
  return Number.isInteger(value) ? value : refuse(name, value, 'a whole number');
}

// Halls, by commas: clients are spread over them, and go to the next one when they come back.
export function urls() {
  const given = __ENV.URL || 'ws://127.0.0.1:8080';
  const all = given.split(',').map((url) => url.replace(/\/+$/, ''));
  const right = all.every((url) => /^wss?:\/\/[^/\s]/.test(url));
  return right ? all : refuse('URL', given, 'like ws://HOST:PORT, several with commas');
}

export function room() {
  const name = __ENV.ROOM || 'k6';
  const right = /^[a-z0-9][a-z0-9._-]{0,55}$/.test(name);
  return right ? name : refuse('ROOM', name, '1 to 56 of a-z 0-9 . _ - that begin with a letter or digit');
}

// Sizes, by commas.
export function sizes(name, otherwise) {
  const given = __ENV[name] || otherwise;
  const all = given.split(',').map(Number);
  const right = all.every((size) => Number.isInteger(size) && size >= 1);
  return right ? all : refuse(name, given, 'whole numbers with commas, each 1 or more');
}
