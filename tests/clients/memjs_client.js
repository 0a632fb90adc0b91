// The memjs client (binary protocol) against a running server: `memjs_client.js PORT`, with NODE_PATH set.
'use strict';

const assert = require('node:assert/strict');
const memjs = require('memjs');

async function main(port) {
  const client = memjs.Client.create(`127.0.0.1:${port}`, { timeout: 5, conntimeout: 5, retries: 1 });
  const text = async (key) => {
    const { value } = await client.get(key);
    return value === null ? null : value.toString();
  };
  await client.flush();

  assert.equal(await client.set('a', '1', { expires: 60 }), true);
  assert.equal(await text('a'), '1');
  assert.equal(await text('missing'), null);

  assert.equal(await client.add('a', '2', {}), false);
  assert.equal(await client.add('new', 'b', {}), true);
  assert.equal(await client.append('new', 'c'), true);
  // No prepend: memjs 1.3.2 sends append for it.
  assert.equal(await text('new'), 'bc');
  assert.match(String(await client.append('missing', 'c').catch((error) => error)), /MemJS APPEND/);
  assert.equal(await client.replace('new', 'd', {}), true);
  assert.equal(await client.replace('missing', 'd', {}), false);
  assert.equal(await text('new'), 'd');

  // The callbacks' second argument, which the promises leave out: whether it went well, and what is counted now.
  const counted = (name, amount, options) =>
    new Promise((resolve, reject) => {
      client[name]('n', amount, options, (error, ok, value) => (error ? reject(error) : resolve([ok, value])));
    });
  assert.deepEqual(await counted('increment', 5, { initial: 40 }), [true, 40]);
  assert.deepEqual(await counted('increment', 5, {}), [true, 45]);
  assert.deepEqual(await counted('decrement', 100, {}), [true, 0]);

  assert.equal(await client.touch('new', 100), true);
  assert.equal(await client.touch('missing', 100), false);
  assert.equal(await client.set('short', 'x', { expires: 1 }), true);
  const deadline = Date.now() + 5000;
  while ((await text('short')) !== null) {
    assert.ok(Date.now() < deadline, 'an item outlived its second');
    await new Promise((resume) => setTimeout(resume, 50));
  }

  const large = Buffer.alloc(1024000, Buffer.from([...Array(256).keys()]));
  assert.equal(await client.set('large', large, {}), true);
  assert.ok((await client.get('large')).value.equals(large), 'another value came back');
  assert.equal(await client.set('large', Buffer.alloc(1 << 20), {}).catch(() => 'refused'), 'refused');
  assert.equal(await text('large'), null, 'a stale value survived a set that failed');

  // Many at once on one connection: each answer finds its request by the opaque.
  const numbers = [...Array(500).keys()];
  await Promise.all(numbers.map((n) => client.set(`m${n}`, String(n), {})));
  assert.deepEqual(await Promise.all(numbers.map((n) => text(`m${n}`))), numbers.map(String));

  assert.equal(await client.delete('new'), true);
  assert.equal(await client.delete('new'), false);
  const [stats, settings] = await Promise.all(
    ['stats', 'statsWithKey'].map(
      (name) =>
        new Promise((resolve, reject) => {
          const answer = (error, server, told) => (error ? reject(error) : resolve(told));
          if (name === 'stats') client.stats(answer);
          else client.statsWithKey('settings', answer);
        }),
    ),
  );
  assert.ok(Number(stats.cmd_set) > 500 && stats.version, JSON.stringify(stats));
  assert.ok(Number(settings.maxbytes) > 0, JSON.stringify(settings));
  client.close();
}

main(Number(process.argv[2])).then(
  () => console.log('memjs: 1 passed, 0 failed'),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
