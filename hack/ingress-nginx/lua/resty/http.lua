-- lua-resty-http is not in Debian. ingress-nginx fetches OCSP responses with it, and only then makes a client:
-- stapling (enable-ocsp) fails here and says why.
return { new = function() return nil, "no HTTP client in this build: OCSP stapling is not available" end }
