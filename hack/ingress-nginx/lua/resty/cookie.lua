-- lua-resty-cookie under the name that Debian's lua-nginx-cookie gives it.
return require("nginx.cookie")
