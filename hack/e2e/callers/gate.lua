-- http-request lua.ask-gate HEADER,HEADER: asks the URL in txn.gate, at
-- txn.gate_address if that is set, with the headers of the request, and no body.
-- The secret in txn.gate_secret, if any, is shown to the gate and to nobody else.
-- Sets txn.gate_status and, for 401, txn.gate_challenge. When allowed, the named
-- headers of the answer replace those of the request, and no others do.

-- Of the connection or of the body, not of the request.
local dropped = {
  ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}

local function ask(txn, identity)
  txn:set_var("txn.gate_status", 0)
  local headers = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not dropped[name] then
      local list = {}
      for i = 0, #values do
        list[#list + 1] = values[i]
      end
      headers[name] = list
    end
  end
  local secret = txn:get_var("txn.gate_secret")
  if secret then
    headers["x-keywright-caller"] = {secret}
  end
  local answer = core.httpclient():get{url = txn:get_var("txn.gate"), dst = txn:get_var("txn.gate_address"), headers = headers}
  if answer == nil or answer.status == nil then
    return
  end
  txn:set_var("txn.gate_status", answer.status)
  local function first(name)
    local values = answer.headers and answer.headers[name]
    return values and values[0] or ""
  end
  if answer.status == 401 then
    txn:set_var("txn.gate_challenge", first("www-authenticate"))
  end
  if answer.status == 200 then
    for name in string.gmatch(identity, "[^,]+") do
      txn.http:req_set_header(name, first(string.lower(name)))
    end
  end
end

core.register_action("ask-gate", {"http-req"}, ask, 1)
