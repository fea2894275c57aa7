-- lua-resty-dns under the name that Debian's lua-nginx-dns gives it.
return require("nginx.dns.resolver")
