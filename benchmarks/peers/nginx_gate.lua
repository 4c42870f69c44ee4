-- Token check of the nginx + Lua peer. lifetime: seconds that an answer is remembered; 0: none is.
local cjson = require "cjson.safe"
local gate = {}
local INACTIVE, SCOPELESS, GOOD = 1, 2, 3

local function ask(token)
  local answer = ngx.location.capture("/_introspect", {
    method = ngx.HTTP_POST, body = "token=" .. ngx.escape_uri(token) .. "&token_type_hint=access_token" })
  local facts = answer.status == 200 and cjson.decode(answer.body)
  if not facts or type(facts.active) ~= "boolean" then return nil end
  if not facts.active then return INACTIVE end
  return string.find(" " .. (facts.scope or "") .. " ", " read ", 1, true) and GOOD or SCOPELESS
end

function gate.check(lifetime)
  local header = ngx.var.http_authorization
  local found = header and ngx.re.match(header, [[^bearer +([A-Za-z0-9\-._~+/]+=*)$]], "ijo")
  if not found then
    ngx.header["WWW-Authenticate"] = 'Bearer realm="api"'
    return ngx.exit(401)
  end
  local tokens, token = ngx.shared.tokens, found[1]
  local verdict = lifetime > 0 and tokens:get(token) or nil
  if not verdict then
    verdict = ask(token)
    if not verdict then return ngx.exit(503) end
    if lifetime > 0 then tokens:set(token, verdict, lifetime) end
  end
  if verdict == INACTIVE then
    ngx.header["WWW-Authenticate"] = 'Bearer realm="api", error="invalid_token"'
    return ngx.exit(401)
  elseif verdict == SCOPELESS then
    ngx.header["WWW-Authenticate"] = 'Bearer realm="api", error="insufficient_scope", scope="read"'
    return ngx.exit(403)
  end
end

return gate
