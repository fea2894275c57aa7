-- Stands in for lua-resty-chash, which Debian does not package: ingress-nginx's balancers chash, chashsubset
-- and the sticky ones ask it which node a key belongs to. Rendezvous hashing, so that, as with the original,
-- a node that comes or goes moves only its own keys. Weights are not looked at (ingress-nginx gives each node 1).
local _M = {}
local mt = { __index = _M }

function _M.new(_, nodes)
  return setmetatable({ nodes = nodes }, mt)
end

function _M.reinit(self, nodes)
  self.nodes = nodes
end

function _M.find(self, key)
  local best, best_score
  for id in pairs(self.nodes) do
    local score = ngx.crc32_long(id .. "\0" .. tostring(key))
    if not best or score > best_score or (score == best_score and id < best) then
      best, best_score = id, score
    end
  end
  return best
end

return _M
