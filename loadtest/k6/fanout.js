// Many in one room, some of whom speak: does everybody get everything once and in order, and how soon?
//
//   k6 run -e URL=ws://127.0.0.1:8080 -e RECEIVERS=200 loadtest/k6/fanout.js
//
//   URL        ws:// or wss:// of a hall, several with commas (ws://127.0.0.1:8080)
//   ROOM       the room (k6)
//   RECEIVERS  how many are in it (50)
//   SPEAKERS   how many of them speak (5)
//   RATE       messages a second, of all speakers together (20)
//   SECONDS    for how long they speak (10)
//   GATHER     seconds before that, for everybody to come in (2)
//   SETTLE     seconds after it until what is missing counts as lost (5)
//   P99        milliseconds from when a message was due until it was heard, of which 99 in 100 stay below (1000)

import exec from 'k6/execution';
import { setTimeout } from 'k6/timers';

import { number, room, urls, whole } from './settings.js';
import { Client, sayAt, thresholds } from './townhall.js';

const URLS = urls();
const ROOM = room();
const RECEIVERS = whole('RECEIVERS', 50);
const SPEAKERS = whole('SPEAKERS', Math.min(5, RECEIVERS));
const RATE = number('RATE', 20, 0.01);
const SECONDS = number('SECONDS', 10, 0.1);
const GATHER = number('GATHER', 2, 0);
const SETTLE = number('SETTLE', 5, 0);
if (SPEAKERS > RECEIVERS) throw new Error(`SPEAKERS=${SPEAKERS}: there are only ${RECEIVERS} RECEIVERS`);

export const options = {
  scenarios: {
    fanout: {
      executor: 'per-vu-iterations',
      vus: RECEIVERS,
      iterations: 1,
      maxDuration: `${Math.ceil(GATHER + SECONDS + SETTLE + 30)}s`,
    },
  },
  thresholds: thresholds(number('P99', 1000, 0)),
};

export default function () {
  const index = exec.vu.idInTest - 1;
  const client = new Client({ urls: URLS, number: index, room: ROOM });
  const begin = exec.scenario.startTime + GATHER * 1000;
  for (let turn = index; index < SPEAKERS && turn < RATE * SECONDS; turn += SPEAKERS) {
    sayAt(begin + Math.round((turn * 1000) / RATE), client);
  }
  setTimeout(() => client.finish(SETTLE * 1000), begin + SECONDS * 1000 + 500 - Date.now());
}
