// oidc-provider with its data in a Map that forgets nothing. Environment: HOST (the address to listen on, and to be
// called by), PORT, MODULES (where node_modules is), INITIAL_ACCESS_TOKEN.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.env.MODULES}/package.json`);
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));
const host = process.env.HOST;
const port = Number(process.env.PORT);
const store = new Map();

// The adapter that comes with it forgets the oldest of some thousand entries, clients included.
class Adapter {
  constructor(name) { this.name = name; }
  key(id) { return `${this.name}:${id}`; }
  async upsert(id, payload) { store.set(this.key(id), payload); }
  async find(id) { return store.get(this.key(id)); }
  async findByUserCode() { return undefined; }
  async findByUid() { return undefined; }
  async consume(id) { store.get(this.key(id)).consumed = true; }
  async destroy(id) { store.delete(this.key(id)); }
  async revokeByGrantId() {}
}

const provider = new Provider(`http://${host}:${port}`, {
  adapter: Adapter,
  scopes: ['read', 'write'],
  clientDefaults: { grant_types: ['client_credentials'], response_types: [], redirect_uris: [] },
  ttl: { ClientCredentials: () => 300 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    registration: { enabled: true, initialAccessToken: process.env.INITIAL_ACCESS_TOKEN },
    registrationManagement: { enabled: true, rotateRegistrationAccessToken: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (ctx, resource) => ({ scope: 'read write', audience: resource, accessTokenFormat: 'opaque' }),
    },
  },
});
provider.on('server_error', (ctx, error) => console.error('server_error', error));
provider.listen(port, host);
