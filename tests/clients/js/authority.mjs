// The authorization server of an EHR (oidc-provider) with SMART's launch contexts. Argument: the backend client's JWK set.
// Prints its issuer. Each line that it reads is JSON: {base, tenant} is a FHIR server that it protects, {launch, user,
// fhirUser, patient} a launch of an app; it answers each with a line. Ends with its input.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Provider, errors } from "oidc-provider";

console.info = console.error; // what oidc-provider remarks is not for those who read our lines
const [backendKeys] = process.argv.slice(2);
const tenants = new Map();
const launches = new Map();
const launchOfGrant = new Map();

const scope = ["patient", "user", "system"]
  .flatMap((who) => ["Appointment", "Slot", "Schedule"].flatMap((type) => [`${who}/${type}.cruds`, `${who}/${type}.rs`]))
  .join(" ");

async function getResourceServerInfo(ctx, resource) {
  if (!tenants.has(resource)) throw new errors.InvalidTarget();
  const jwt = { sign: { alg: "ES384" } };
  return { scope, audience: resource, accessTokenFormat: "jwt", accessTokenTTL: 300, jwt };
}

// SMART names the FHIR server by `aud`, RFC 8707 by `resource`; a backend service may name none.
const defaultResource = (ctx, client, oneOf) => oneOf ?? ctx.oidc.params.aud ?? tenants.keys().next().value;

async function loadExistingGrant(ctx) {
  const { client, session, provider, params } = ctx.oidc;
  const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope("openid fhirUser launch");
  grant.addResourceScope(params.aud, params.scope);
  launchOfGrant.set(await grant.save(), params.launch);
  return grant;
}

const contextOf = (token) => launches.get(launchOfGrant.get(token.grantId));

const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-384" });
const app = {
  client_id: "app",
  application_type: "native",
  redirect_uris: ["http://127.0.0.1/callback"],
  token_endpoint_auth_method: "none",
};
const backend = {
  client_id: "backend",
  redirect_uris: [],
  response_types: [],
  grant_types: ["client_credentials"],
  token_endpoint_auth_method: "private_key_jwt",
  jwks: JSON.parse(backendKeys),
};

const configuration = {
  clients: [app, backend],
  jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), kid: "ehr", alg: "ES384", use: "sig" }] },
  scopes: ["openid", "fhirUser", "launch"],
  claims: { openid: ["sub"], fhirUser: ["fhirUser"] },
  conformIdTokenClaims: false,
  extraParams: ["aud", "launch"],
  clientDefaults: { id_token_signed_response_alg: "ES384" },
  enabledJWA: { clientAuthSigningAlgValues: ["ES384", "RS384"], idTokenSigningAlgValues: ["ES384"] },
  cookies: { keys: ["for tests"] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: { enabled: true, defaultResource, getResourceServerInfo, useGrantedResource: () => true },
  },
  renderError: (ctx, told) => {
    ctx.body = JSON.stringify(told);
  },
  interactions: { url: (ctx, interaction) => `/signed-in/${interaction.uid}` },
  loadExistingGrant,
  extraTokenClaims(ctx, token) {
    const { patient, fhirUser } = contextOf(token) ?? {};
    return { tenant_id: tenants.get(token.resourceServer.identifier()), patient, fhirUser };
  },
  findAccount: (ctx, sub) => ({
    accountId: sub,
    claims: () => ({ sub, fhirUser: [...launches.values()].find((each) => each.user === sub).fhirUser }),
  }),
};

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  // What SMART adds to the answer of the token endpoint: the context beside the token.
  provider.use(async (ctx, next) => {
    await next();
    const context = ctx.oidc?.route === "token" && ctx.status === 200 && contextOf(ctx.oidc.entities.AccessToken ?? {});
    if (context) ctx.body.patient = context.patient;
  });
  const answer = provider.callback();
  server.on("request", async (request, response) => {
    if (!request.url.startsWith("/signed-in/")) return answer(request, response);
    // Whoever launches an app from the EHR is signed in there.
    const { params } = await provider.interactionDetails(request, response);
    const login = { accountId: launches.get(params.launch).user };
    return provider.interactionFinished(request, response, { login, consent: {} });
  });
  console.log(issuer);
});

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const told = JSON.parse(line);
  if (told.base) tenants.set(told.base, told.tenant);
  else launches.set(told.launch, told);
  console.log("known");
});
lines.on("close", () => process.exit(0));
