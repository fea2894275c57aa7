-- Stands in for lua-resty-roundrobin, which Debian does not package: the balancer of every backend that asks
-- for no other. A worker goes round its own list; a node stands in it as often as its weight says.
local _M = {}
local mt = { __index = _M }

function _M.new(_, nodes)
  local self = setmetatable({}, mt)
  self:reinit(nodes)
  return self
end

function _M.reinit(self, nodes)
  -- The caller compares self.nodes with its next list to see whether anything changed.
  self.nodes = nodes
  self.turns = {}
  self.last = 0
  for id, weight in pairs(nodes) do
    for _ = 1, tonumber(weight) or 1 do
      self.turns[#self.turns + 1] = id
    end
  end
  table.sort(self.turns)
end

function _M.find(self)
  if #self.turns == 0 then
    return nil
  end
  self.last = self.last % #self.turns + 1
  return self.turns[self.last]
end

return _M
