-- Stands in for lua-resty-lock, which Debian does not package. Its one user, the ewma balancer, never waits
-- for a lock (timeout 0), so neither does this: it has the lock or says "timeout".
local _M = {}
local mt = { __index = _M }

function _M.new(_, dict, opts)
  local shared = ngx.shared[dict]
  if not shared then
    return nil, "dictionary not found"
  end
  return setmetatable({ shared = shared, exptime = opts and opts.exptime or 30 }, mt)
end

function _M.lock(self, key)
  local ok, err = self.shared:add(key, true, self.exptime)
  if not ok then
    return nil, err == "exists" and "timeout" or err
  end
  self.key = key
  return 0
end

function _M.unlock(self)
  if not self.key then
    return nil, "unlocked"
  end
  self.shared:delete(self.key)
  self.key = nil
  return 1
end

return _M
