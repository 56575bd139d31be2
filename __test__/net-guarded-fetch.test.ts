import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';

import { expect } from 'chai';

import { refusedAddress } from '../ts/net/addresses.js';
import { GuardedFetchError } from '../ts/net/errors.js';
import { guardedFetch, type GuardedFetchOptions } from '../ts/net/guarded-fetch.js';
import { rejection } from './helpers/rejection.js';

describe('addresses that a stranger may not name', () => {
  const refused = [
    '127.0.0.1',
    '127.255.255.254',
    '0.0.0.0',
    '0.1.2.3',
    '10.0.0.1',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '100.64.0.1',
    '169.254.169.254',
    '192.0.0.192',
    '192.0.2.1',
    '198.18.0.1',
    '224.0.0.1',
    '240.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::ffff:127.0.0.1',
    '::ffff:10.0.0.1',
    '::ffff:a9fe:a9fe',
    '::127.0.0.1',
    '64:ff9b::10.0.0.1',
    '64:ff9b::7f00:1',
    '64:ff9b:1::1',
    '2002:7f00:1::',
    '2001::1',
    '2001:db8::1',
    'fe80::1',
    'fe80::1%eth0',
    'fec0::1',
    'fc00::1',
    'fd00:ec2::254',
    'ff02::1',
    '4000::1',
    'not an address',
  ];
  for (const address of refused) {
    it(address, () => expect(refusedAddress(address, {})).to.be.a('string'));
  }

  for (const address of [
    '1.1.1.1',
    '172.32.0.1',
    '100.128.0.1',
    '2606:4700::1111',
    '64:ff9b::1.1.1.1',
    '::ffff:8.8.8.8',
  ]) {
    it(`but ${address}`, () => expect(refusedAddress(address, {})).to.equal(undefined));
  }

  it('except what the operator allows', () => {
    for (const address of ['127.0.0.1', '::1', '::ffff:127.0.0.1']) {
      expect(refusedAddress(address, { allowLoopback: true }), address).to.equal(undefined);
      expect(refusedAddress(address, { allowPrivate: true }), address).to.be.a('string');
    }
    for (const address of ['10.1.1.1', '192.168.0.1', '100.64.0.1', 'fd12::1', '64:ff9b::10.0.0.1']) {
      expect(refusedAddress(address, { allowPrivate: true }), address).to.equal(undefined);
      expect(refusedAddress(address, { allowLoopback: true }), address).to.be.a('string');
    }
  });

  it('and never a metadata service or a link', () => {
    const all = { allowLoopback: true, allowPrivate: true };
    for (const address of [
      '169.254.169.254',
      'fd00:ec2::254',
      '100.100.100.200',
      'fe80::1',
      '64:ff9b::169.254.169.254',
    ]) {
      expect(refusedAddress(address, all), address).to.be.a('string');
    }
  });
});

describe('guarded fetch', () => {
  const open: { close: () => void }[] = [];
  afterEach(() => {
    for (const { close } of open.splice(0)) close();
  });

  async function serve(handler: RequestListener): Promise<URL> {
    const server = createServer(handler);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    open.push({
      close: () => {
        server.close();
        server.closeAllConnections();
      },
    });
    return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/a`);
  }

  const local = (options: GuardedFetchOptions = {}) => guardedFetch({ allowLoopback: true, ...options });

  async function codeOf(promise: Promise<unknown>): Promise<unknown> {
    return (await rejection(promise, GuardedFetchError)).code;
  }

  it('fetches: status, headers, body', async () => {
    const url = await serve((request, response) => {
      response.writeHead(201, { 'x-a': ['1', '2'], 'content-type': 'text/plain' });
      request.pipe(response);
    });
    const response = await local()(url, { method: 'POST', body: 'hällo', headers: { 'x-b': '3' } });
    expect(response.status).to.equal(201);
    expect(response.headers.get('x-a')).to.equal('1, 2');
    expect(response.url).to.equal(url.href);
    expect(await response.text()).to.equal('hällo');
  });

  it('refuses other protocols, passwords and written-out addresses of this machine', async () => {
    const fetch = guardedFetch();
    expect(await codeOf(fetch('file:///etc/passwd'))).to.equal('invalid_url');
    expect(await codeOf(fetch('data:text/plain,a'))).to.equal('invalid_url');
    expect(await codeOf(fetch('http://a:b@example.com/'))).to.equal('invalid_url');
    for (const url of [
      'http://127.0.0.1/',
      'http://[::1]/',
      'http://2130706433/',
      'http://0x7f.1/',
      'http://[::ffff:10.0.0.1]/',
    ])
      expect(await codeOf(fetch(url)), url).to.equal('blocked_address');
  });

  it('refuses a name if one of its addresses is refused', async () => {
    const fetch = guardedFetch({ resolve: async () => ['93.184.216.34', '10.0.0.1'] });
    const error = await rejection(fetch('http://internal.example/secret?token=abc'), GuardedFetchError);
    expect(error).to.have.property('code', 'blocked_address');
    expect(error.message).to.equal('internal.example is refused: its address is a private address');
  });

  it('connects to the address that it checked, whatever the name says next', async () => {
    let served = 0;
    const url = await serve((_request, response) => {
      served++;
      response.end('in');
    });
    // "localhost" is ours here; the second answer would be another machine's.
    const answers = [['127.0.0.1'], ['10.0.0.1']];
    let asked = 0;
    const fetch = local({ resolve: async () => answers[asked++] ?? [] });
    const target = `http://rebind.example:${url.port}/`;
    expect(await (await fetch(target)).text()).to.equal('in');
    expect(asked).to.equal(1);
    expect(await codeOf(fetch(target))).to.equal('blocked_address');
    expect(served).to.equal(1);
  });

  it('checks every hop of a redirect', async () => {
    for (const location of [
      'http://10.0.0.1/',
      'http://169.254.169.254/latest/meta-data',
      'file:///etc/passwd',
      'gopher://a/',
    ]) {
      const url = await serve((_request, response) => response.writeHead(302, { location }).end());
      expect(await codeOf(local()(url)), location).to.be.oneOf(['blocked_address', 'invalid_url']);
    }
  });

  it('follows redirects within bounds, and leaves credentials behind at another origin', async () => {
    let seen: unknown;
    const other = await serve((request, response) => {
      seen = request.headers;
      response.end('there');
    });
    const url = await serve((_request, response) => response.writeHead(307, { location: other.href }).end());
    const secrets = { authorization: 'Bearer a', cookie: 'b', 'x-api-key': 'c', accept: 'text/plain' };
    const response = await local()(url, { headers: secrets });
    expect([await response.text(), response.url, response.redirected]).to.deep.equal(['there', other.href, true]);
    expect(seen).to.include({ accept: 'text/plain' });
    expect(seen).to.not.have.any.keys('authorization', 'cookie', 'x-api-key');

    expect(await codeOf(local()(url, { method: 'POST', body: 'secret' }))).to.equal('redirect_refused');
    const loop = await serve((_request, answer) => answer.writeHead(302, { location: '/a' }).end());
    expect(await codeOf(local()(loop))).to.equal('redirect_refused');
    expect(await codeOf(local()(loop, { redirect: 'error' }))).to.equal('redirect_refused');
    expect((await local()(loop, { redirect: 'manual' })).status).to.equal(302);
  });

  it('bounds the size, announced or not', async () => {
    const announced = await serve((_request, response) => response.writeHead(200, { 'content-length': 2000 }).end());
    expect(await codeOf(local({ maxBytes: 1000 })(announced))).to.equal('too_large');
    const endless = await serve((_request, response) => {
      const write = (): void => {
        while (response.write('x'.repeat(1000)));
        response.once('drain', write);
      };
      write();
    });
    const response = await local({ maxBytes: 100_000 })(endless);
    expect(await codeOf(response.text())).to.equal('too_large');
  });

  it('counts an event stream by its events', async () => {
    const url = await serve((request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (let i = 0; i < 50; i++) response.write(`data: ${'x'.repeat(100)}\n\n`);
      response.end(request.url === '/long' ? `data: ${'x'.repeat(2000)}` : undefined);
    });
    const fetch = local({ maxBytes: 1000 });
    expect(await (await fetch(url)).text()).to.have.length(50 * 108);
    expect(await codeOf((await fetch(new URL('/long', url))).text())).to.equal('too_large');
  });

  it('refuses compressed answers', async () => {
    const url = await serve((_request, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end('x'));
    expect(await codeOf(local()(url))).to.equal('bad_response');
  });

  it('bounds the time until the headers, and until the end', async () => {
    const silent = await serve(() => undefined);
    expect(await codeOf(local({ headersTimeoutMs: 20 })(silent))).to.equal('timeout');
    const slow = await serve((_request, response) => response.write('a'));
    const response = await local({ totalTimeoutMs: 50 })(slow);
    expect(await codeOf(response.text())).to.equal('timeout');
  });

  it('ends with its caller', async () => {
    let closed: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => (closed = resolve));
    const url = await serve((request, response) => {
      request.once('close', closed);
      response.write('a');
    });
    const controller = new AbortController();
    const response = await local()(url, { signal: controller.signal });
    controller.abort(new Error('enough'));
    expect(await rejection(response.text(), Error)).to.have.property('message', 'enough');
    await ended;
    expect(await rejection(local()(url, { signal: AbortSignal.abort(new Error('before')) }), Error)).to.have.property(
      'message',
      'before',
    );
  });

  it('names neither paths nor headers in its errors', async () => {
    const url = await serve((_request, response) => response.destroy());
    const error = await rejection(
      local()(new URL('/path?token=hunter22', url), { headers: { authorization: 'Bearer hunter22' } }),
      GuardedFetchError,
    );
    expect(error).to.have.property('code', 'network');
    expect(error.message).to.not.contain('hunter22');
  });
});
