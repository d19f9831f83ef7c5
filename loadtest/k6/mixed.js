// Rooms of several sizes, in which people come and go, type, and ask who is there: does everybody, wherever they come back, get what
// they missed, once and in order?
//
//   k6 run -e URL=ws://127.0.0.1:8080,ws://127.0.0.1:8081 -e ROOMS=100,20,3 loadtest/k6/mixed.js
//
//   URL        ws:// or wss:// of a hall, several with commas (ws://127.0.0.1:8080); who comes back does so at the next one
//   ROOM       what the names of the rooms begin with (k6)
//   ROOMS      how many are in each of them, with commas (30,10,3)
//   SPEAKERS   how many speak in each of them (2)
//   RATE       messages a second in each of them (5)
//   SECONDS    for how long they speak (10)
//   LEAVERS    one in so many comes and goes, of those who do not speak (3); 0: nobody does
//   STAY       seconds that one of those stays (2)
//   AWAY       seconds until they are back (1)
//   GATHER     seconds before anybody speaks, for everybody to come in (2)
//   SETTLE     seconds after it until what is missing counts as lost (5)
//   P99        milliseconds from when a message was due until it was heard, of which 99 in 100 stay below (1000)

import { check } from 'k6';
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';
import { setTimeout } from 'k6/timers';

import { number, room, sizes, urls, whole } from './settings.js';
import { Client, sayAt, thresholds } from './townhall.js';

const URLS = urls();
const ROOM = room();
const ROOMS = sizes('ROOMS', '30,10,3');
const SPEAKERS = whole('SPEAKERS', 2);
const RATE = number('RATE', 5, 0.01);
const SECONDS = number('SECONDS', 10, 0.1);
const LEAVERS = whole('LEAVERS', 3, 0);
const STAY = number('STAY', 2, 0.1);
const AWAY = number('AWAY', 1, 0);
const GATHER = number('GATHER', 2, 0);
const SETTLE = number('SETTLE', 5, 0);

const typing = new Counter('typing_heard');
const members = new Counter('members_told');

export const options = {
  scenarios: {
    mixed: {
      executor: 'per-vu-iterations',
      vus: ROOMS.reduce((sum, size) => sum + size),
      iterations: 1,
      maxDuration: `${Math.ceil(GATHER + SECONDS + AWAY + SETTLE + 30)}s`,
    },
  },
  thresholds: {
    ...thresholds(number('P99', 1000, 0)),
    members_told: ['count>0'],
    ...(LEAVERS > 0 && SECONDS > STAY ? { resumed: ['count>0'] } : {}),
  },
};

// The room of the `index`th client, and which one it is there.
function seat(index) {
  let before = 0;
  let room = 0;
  while (index >= before + ROOMS[room]) {
    before += ROOMS[room];
    room += 1;
  }
  return { room, place: index - before };
}

function heard(frame, client, size) {
  if (frame.type === 'joined') client.ask('who');
  if (frame.type === 'typing') typing.add(1);
  if (frame.type === 'members') {
    members.add(1);
    check(frame, { 'there are no more members than were sent': ({ count }) => count >= 1 && count <= size });
  }
}

export default function () {
  const index = exec.vu.idInTest - 1;
  const { room, place } = seat(index);
  const size = ROOMS[room];
  const client = new Client({
    urls: URLS,
    number: index,
    room: `${ROOM}-${room}`,
    heard: (frame) => heard(frame, client, size),
  });
  const begin = exec.scenario.startTime + GATHER * 1000;
  const end = begin + SECONDS * 1000;
  const speakers = Math.min(SPEAKERS, size);
  for (let turn = place; place < speakers && turn < RATE * SECONDS; turn += speakers) {
    sayAt(begin + Math.round((turn * 1000) / RATE), client, () => client.ask('typing'));
  }
  if (LEAVERS > 0 && place >= speakers && place % LEAVERS === LEAVERS - 1) {
    for (let at = begin + STAY * 1000; at < end; at += (STAY + AWAY) * 1000) {
      setTimeout(() => client.away(AWAY * 1000), at - Date.now());
    }
  }
  setTimeout(() => client.finish((AWAY + SETTLE) * 1000), end + 500 - Date.now());
}
