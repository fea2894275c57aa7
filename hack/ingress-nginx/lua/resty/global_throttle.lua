-- lua-resty-global-throttle is not in Debian. It is made only where a memcached for the global rate limit is
-- configured: that limit fails here and says why.
return { new = function() return nil, "no global throttle in this build: global rate limits are not available" end }
