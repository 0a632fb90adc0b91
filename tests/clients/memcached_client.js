// Node's memcached client (text protocol) against a running server: `memcached_client.js PORT`, with NODE_PATH set.
'use strict';

const assert = require('node:assert/strict');
const { promisify } = require('node:util');
const Memcached = require('memcached');

async function main(port) {
  const client = new Memcached(`127.0.0.1:${port}`, { timeout: 5000, retries: 0, poolSize: 4 });
  const call = (name, ...given) => promisify(client[name]).call(client, ...given);
  const refused = async (...given) => {
    const answer = await call(...given).catch((error) => error);
    assert.ok(answer === false || answer instanceof Error, `${given[0]} ${given[1]}: ${answer}`);
    return String(answer);
  };
  await call('flush');

  // Flags: the client keeps the type of a value in them.
  for (const value of [7, 'text', Buffer.from([0, 13, 10, 255]), { a: [1, 2] }]) {
    assert.equal(await call('set', 'typed', value, 60), true);
    assert.deepEqual(await call('get', 'typed'), value);
  }
  assert.equal(await call('get', 'missing'), undefined);
  assert.equal(await call('set', 'lines', 'END\r\nVALUE a 0 1\r\n', 60), true);
  assert.equal(await call('get', 'lines'), 'END\r\nVALUE a 0 1\r\n');

  const numbers = [...Array(100).keys()];
  await Promise.all(numbers.map((n) => call('set', `m${n}`, n, 60)));
  const found = await call('getMulti', [...numbers.map((n) => `m${n}`), 'm100']);
  assert.deepEqual(found, Object.fromEntries(numbers.map((n) => [`m${n}`, n])));

  await refused('add', 'typed', 'again', 60);
  assert.equal(await call('add', 'new', 'b', 60), true);
  assert.equal(await call('append', 'new', 'c'), true);
  assert.equal(await call('prepend', 'new', 'a'), true);
  assert.equal(await call('get', 'new'), 'abc');
  assert.equal(await call('replace', 'new', 'd', 60), true);
  await refused('replace', 'missing', 'd', 60);

  const { cas, new: value } = await call('gets', 'new');
  assert.equal(value, 'd');
  assert.equal(await call('cas', 'new', 'e', cas, 60), true);
  assert.equal(await call('cas', 'new', 'f', cas, 60), false);
  assert.equal(await call('get', 'new'), 'e');

  assert.equal(await call('set', 'n', 41, 60), true);
  assert.equal(await call('incr', 'n', 1), 42);
  assert.equal(await call('decr', 'n', 100), 0);
  assert.equal(await call('incr', 'missing', 1), false);
  assert.match(await refused('incr', 'new', 1), /non-numeric/);

  assert.equal(await call('touch', 'new', 100), true);
  assert.equal(await call('touch', 'missing', 100), false);
  assert.equal(await call('set', 'past', 'x', -1), true);
  assert.equal(await call('get', 'past'), undefined);

  const large = Buffer.alloc(500_000, 'large');
  assert.equal(await call('set', 'large', large, 60), true);
  assert.deepEqual(await call('get', 'large'), large);

  assert.equal(await call('del', 'new'), true);
  assert.equal(await call('del', 'new'), false);
  const [stats] = await call('stats');
  assert.ok(stats.cmd_set > 100 && stats.version, JSON.stringify(stats));
  const [settings] = await call('settings');
  assert.ok(settings.maxbytes > 0, JSON.stringify(settings));
  const [items] = await call('items');
  assert.ok(Object.values(items).some((told) => told && told.number > 0), JSON.stringify(items));
  const [version] = await call('version');
  assert.match(version.version, /^\d+\.\d+\.\d+$/);
  client.end();
}

main(Number(process.argv[2])).then(
  () => {
    console.log("node's memcached: 1 passed, 0 failed");
    process.exit(0);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
