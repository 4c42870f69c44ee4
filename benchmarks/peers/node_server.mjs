// Node as the reference server does it: introspection by fetch, answers in a Map. LIFETIME 0: none is remembered.
import http from 'node:http';

const { PORT, AS_PORT, UPSTREAM_PORT, BASIC } = process.env;
const lifetime = Number(process.env.LIFETIME) * 1000;
const known = new Map();
const agent = new http.Agent({ keepAlive: true, maxSockets: 256 });

async function introspect(token) {
  const answer = await fetch(`http://127.0.0.1:${AS_PORT}/introspect`, {
    method: 'POST',
    headers: { Authorization: `Basic ${BASIC}`, 'Content-Type': 'application/x-www-form-urlencoded', Accept: 'application/json' },
    body: new URLSearchParams({ token, token_type_hint: 'access_token' }),
  });
  if (!answer.ok) throw new Error(`authorization server: ${answer.status}`);
  return answer.json();
}

function send(response, status, document, headers) {
  const body = JSON.stringify(document);
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), ...headers });
  response.end(body);
}

function forward(request, response) {
  const headers = { ...request.headers };
  delete headers.authorization;
  delete headers.connection;
  headers.host = `127.0.0.1:${UPSTREAM_PORT}`;
  const upstream = http.request(
    { host: '127.0.0.1', port: UPSTREAM_PORT, path: request.url, method: request.method, headers, agent },
    (answer) => {
      delete answer.headers.connection;
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
  upstream.on('error', () => send(response, 502, { error: 'bad_gateway' }));
  request.pipe(upstream);
}

http.createServer(async (request, response) => {
  const found = /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i.exec(request.headers.authorization || '');
  if (!found) return send(response, 401, { error: 'unauthorized' }, { 'WWW-Authenticate': 'Bearer realm="api"' });
  const token = found[1];
  const remembered = lifetime ? known.get(token) : undefined;
  let facts = remembered && remembered.until > Date.now() ? remembered.facts : undefined;
  try {
    if (!facts) {
      facts = await introspect(token);
      if (lifetime) known.set(token, { until: Date.now() + lifetime, facts });
    }
  } catch {
    return send(response, 503, { error: 'unavailable' });
  }
  if (facts.active !== true) {
    return send(response, 401, { error: 'unauthorized' }, { 'WWW-Authenticate': 'Bearer realm="api", error="invalid_token"' });
  }
  if (!(facts.scope || '').split(' ').includes('read')) {
    return send(response, 403, { error: 'insufficient_scope' }, { 'WWW-Authenticate': 'Bearer realm="api", error="insufficient_scope", scope="read"' });
  }
  if (request.url !== '/protected') return forward(request, response);
  return send(response, 200, {
    ok: true, protected: true, required_scope: 'read', client_id: facts.client_id, sub: facts.sub, scope: facts.scope, exp: facts.exp,
  });
}).listen(Number(PORT), '127.0.0.1', 4096);
