-- lua-resty-ipmatcher is not in Debian. Only the global rate limit matches addresses with it, which is not
-- available here either.
return { new = function() return nil, "no IP matcher in this build: global rate limits are not available" end }
