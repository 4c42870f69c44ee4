"""Condition and Event reasons: one place, each with what its reader should do. No I/O."""

from __future__ import annotations

from typing import Final

# Condition types of a ProtectedService
AUTHORIZATION_SERVER_READY: Final = "AuthorizationServerReady"
CLIENT_REGISTERED: Final = "ClientRegistered"
CREDENTIALS_READY: Final = "CredentialsReady"
WORKLOAD_AVAILABLE: Final = "WorkloadAvailable"
VERIFIED: Final = "Verified"
SERVICES_ALLOWED: Final = "ServicesAllowed"  # of a ServiceClient
READY: Final = "Ready"
RECONCILING: Final = "Reconciling"  # kstatus: present and True while work is under way
STALLED: Final = "Stalled"  # kstatus: present and True while only a person can help
SUSPENDED: Final = "Suspended"  # present and True while spec.suspend is true; also the reason of what waits for that
ROTATING: Final = "Rotating"  # present while a client takes another one's place (True), or that was given up (False)
UPSTREAM_ISOLATED: Final = "UpstreamIsolated"  # present while spec.upstream.isolate is true; no part of Ready
# of an AuthorizationServer
REACHABLE: Final = "Reachable"
ADMIN_API_EXPOSED: Final = "AdminApiExposed"  # True: put a path filter in front of Hydra's admin port
CROSS_CLIENT_INTROSPECTION: Final = "CrossClientIntrospection"  # False: see its message; callers would get 401

# All is well: nothing to do.
REACHABLE_NOW: Final = "Reachable"
REGISTERED: Final = "Registered"
PROJECTED: Final = "Projected"
ALLOWED: Final = "Allowed"  # every service that a ServiceClient names lets it call
NONE_NAMED: Final = "NoServiceNamed"  # a ServiceClient that names none: only the authorization server decides
AVAILABLE: Final = "Available"
PROVED: Final = "Proved"
READY_NOW: Final = "Ready"
SAME_ORIGIN: Final = "SameOrigin"  # introspection and admin API: put a filter in front that passes introspection only
OTHER_ORIGIN: Final = "OtherOrigin"
# CrossClientIntrospection
INTROSPECTED: Final = "Introspected"
INTROSPECTION_OPEN: Final = "IntrospectionOpen"  # nobody needs a credential to introspect
AUDIENCE_NOT_NAMED: Final = "AudienceNotNamed"  # Keycloak: callers' clients need the service's client scope
TOKENS_OF_OTHERS_HIDDEN: Final = "TokensOfOthersHidden"  # let services' clients introspect all tokens at the server
NO_CLIENT_YET: Final = "NoClientYet"  # looked at when the first service is registered
NOBODY_REGISTERS: Final = "NobodyRegisters"  # registration.none: compare two clients by hand
CANNOT_DELETE: Final = "CannotDelete"  # the server deletes no client: compare two clients by hand
CHECK_INCONCLUSIVE: Final = "CheckInconclusive"  # see the message; an edit of the AuthorizationServer's spec asks again
SCALED_TO_ZERO: Final = "ScaledToZero"  # a legal rest state; raise workload.replicas to serve again
VERIFICATION_DISABLED: Final = "VerificationDisabled"  # the operator runs with PROTECTEDSERVICE_VERIFICATION=false

# Phases of a pass that no condition of the service waits for: what fails there leaves it ready.
ROTATION: Final = "Rotation"
CLIENT_CHECK: Final = "ClientCheck"

# Under way: wait.
PENDING: Final = "Pending"
PROGRESSING: Final = "Progressing"
VERIFYING: Final = "Verifying"
INTENT_OPEN: Final = "RegistrationInterrupted"  # a killed attempt is left to rest before the next one
DELETING: Final = "Deleting"

# The authorization server is in the way: wait, or look at the AuthorizationServer's own conditions.
UNREACHABLE: Final = "AuthorizationServerUnavailable"
NOT_PROBED: Final = "AuthorizationServerNotProbed"

# The author of the ProtectedService must edit it.
SERVER_NOT_FOUND: Final = "AuthorizationServerNotFound"  # name one that exists, or ask for a default
SERVER_DELETED: Final = "AuthorizationServerDeleted"  # it was there: have it made anew, or move to another one
NO_DEFAULT_SERVER: Final = "NoDefaultAuthorizationServer"  # set authorizationServerRef
NOT_ALLOWED: Final = "NotAllowed"  # ask the AuthorizationServer's owner to allow this namespace
SCOPE_NOT_ALLOWED: Final = "ScopeNotAllowed"  # ask for other scopes, or its owner to extend spec.allowedScopes
CANNOT_CHOOSE_CREDENTIALS: Final = "CannotChooseCredentials"  # the server does: leave credentialsSecret.create out
CANNOT_REGISTER: Final = "CannotRegister"  # the server registers nobody: bring id and secret of a client made there
CREDENTIALS_NOT_BROUGHT: Final = "CredentialsNotBrought"  # write the Secret that the message names, with both its keys
CLIENT_ID_TAKEN: Final = "ClientIdTaken"  # bring or adopt another client: that one is there, and is not yours
ADOPTION_NOT_PROVED: Final = "AdoptionNotProved"  # correct the Secret of client.adopt, or have the client made again
CLIENT_IN_OTHER_USE: Final = "ClientInOtherUse"  # adopt a client that is for client_credentials alone
# The author of a ServiceClient must edit it, or wait for the service's owner.
SERVICE_NOT_FOUND: Final = "ServiceNotFound"  # no such ProtectedService: it is waited for, or correct spec.services
SERVICE_NOT_ALLOWED: Final = "ServiceNotAllowed"  # ask the service's owner to extend its spec.allowedClients
SERVED_ELSEWHERE: Final = "ServedElsewhere"  # the service takes tokens of another AuthorizationServer: name that one
AUDIENCE_TAKEN: Final = "AudienceTaken"  # choose another audience; the older service keeps it
INVALID_CLIENT_METADATA: Final = "InvalidClientMetadata"  # the server refuses the scopes, the audience or the name
CLIENT_SCOPE_MISSING: Final = "ClientScopeMissing"  # create the client scope in Keycloak's realm, or edit spec.scopes
SCOPE_NOT_GRANTED: Final = "ScopeNotGranted"  # the server registered the client with other scopes
UPSTREAM_IS_ITSELF: Final = "UpstreamIsItself"  # name the Service behind, not the protected one

# Somebody must remove or rename an object, or change a credential.
ADOPTION_NOT_ALLOWED: Final = "AdoptionNotAllowed"  # ask the AuthorizationServer's owner to set allowAdoption
NOT_OWNED: Final = "NotOwned"  # an object of the child's name belongs to somebody else: remove or rename it
REGISTRATION_REFUSED: Final = "RegistrationRefused"  # correct the AuthorizationServer's registration credential
ISSUER_MISMATCH: Final = "IssuerMismatch"  # the server's metadata names another issuer: correct spec.issuer
INSECURE_ENDPOINT: Final = "InsecureEndpoint"  # plain http: use https, or set spec.allowInsecureHTTP
INVALID_ENDPOINT: Final = "InvalidEndpoint"  # a URL that cannot be used, or does not answer as that endpoint does
ENDPOINT_MISSING: Final = "EndpointMissing"  # known neither from metadata nor from spec.endpoints: list it
CREDENTIALS_SECRET_MISSING: Final = "RegistrationCredentialsMissing"  # noqa: S105 (a reason, not a password)
SERVER_CHANGED: Final = "AuthorizationServerChanged"  # the object now names another server than the client lives at
ROLLOUT_QUEUED: Final = "RolloutQueued"  # the operator's own upgrade waits for its turn: nothing to do
HANDLE_LOST: Final = "RegistrationHandleLost"  # the server no longer takes our handle: delete the client by hand
CA_BUNDLE_UNUSABLE: Final = "CABundleUnusable"  # correct the object that spec.tls.caBundle names, or its content
REJECTED_BY_CLUSTER: Final = "RejectedByCluster"  # quota, admission or Pod Security refused a child: see the message
DRIFT_FOUGHT: Final = "DriftFought"  # something puts back what the operator removes: exempt our Deployment from it

# The proof
VERIFICATION_FAILED: Final = "VerificationFailed"  # the pods do not answer 401/204/401: see status.verification
PODS_UNREACHABLE: Final = "PodsUnreachable"  # let the operator's pods reach the service port (NetworkPolicy, mesh)
REVOCATION_NOT_PROVED: Final = "RevocationNotProved"  # no revocation endpoint, or a bound longer than the proof waits

# The isolated upstream: callers who go past the resource server, and whether they can
DIRECT_CONNECTION_REFUSED: Final = "DirectConnectionRefused"  # all is well
POLICY_APPLIED: Final = "PolicyApplied"  # nobody has shown yet that the network enforces it: see the message
NOT_ENFORCED: Final = "NotEnforced"  # the network enforces no NetworkPolicy, or another policy lets callers in
UPSTREAM_NOT_FOUND: Final = "UpstreamNotFound"  # create the Service, or correct spec.upstream.service.name
UPSTREAM_WITHOUT_SELECTOR: Final = "UpstreamWithoutSelector"  # only pods can be isolated: write a policy by hand
UPSTREAM_SELECTS_SERVER: Final = "UpstreamSelectsServer"  # the Service selects our pods, too: correct podLabels
UPSTREAM_ON_HOST_NETWORK: Final = "UpstreamOnHostNetwork"  # no NetworkPolicy holds there: give the pods their own
UPSTREAM_PORT_UNKNOWN: Final = "UpstreamPortUnknown"  # correct the port, or start a pod that has it

CANNOT_ROTATE: Final = "CannotRotate"  # an adopted client keeps its id: change its secret where it was made
ROTATION_GIVEN_UP: Final = "RotationGivenUp"  # the client in use serves on; tried again after an hour: see the message

# Events only
CLIENT_ADOPTED: Final = "ClientAdopted"
CLIENT_UNCHANGEABLE: Final = "ClientUnchangeable"  # see at the server that the client has what spec says
REGISTRATION_UNCERTAIN: Final = "RegistrationUncertain"  # a client may be left at the server: look for our tag
CLIENT_UPDATED: Final = "ClientUpdated"
CLIENT_DRIFT_REPAIRED: Final = "ClientDriftRepaired"  # somebody changed the client at the server: tell them not to
CLIENT_LOST: Final = "ClientLost"  # somebody deleted the client at the server: a new one is registered
ROTATION_STARTED: Final = "RotationStarted"
ROTATED: Final = "Rotated"
OVERLAP_CUT_SHORT: Final = "OverlapCutShort"  # an old client had what it may not have any more: who uses it must follow
CLIENT_DELETED: Final = "ClientDeleted"
CLIENT_RETAINED: Final = "ClientRetained"  # its object is gone; client and Secret stay (deletionPolicy Retain)
CLIENT_ORPHANED: Final = "ClientOrphaned"  # released without a deletion; the ledger entry remembers it
REPAIRED: Final = "Repaired"
