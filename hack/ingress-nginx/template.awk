# Adapts ingress-nginx's nginx.tmpl to the nginx of Debian's nginx-extras package. ingress-nginx's image is
# OpenResty-like: it has modules that Debian does not package. Each rule says what is missing; a rule that
# finds nothing to change fails the build, so that a new version of the template cannot slip through half adapted.

# The image links these modules in; Debian has them as files. Its workers must also keep the user that may
# read what the controller (root here) writes below /etc/ingress-controller.
/^pid \{\{ \.PID \}\};/ {
    print "user root;"
    print "load_module /usr/lib/nginx/modules/ndk_http_module.so;"
    print "load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;"
    print "load_module /usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so;"
    print "load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
    seen["pid"]++
}

# No Lua in Debian's stream module: TCP and UDP services cannot work. The controller posts their (empty)
# list to this port on each change and takes a refused connection for a failed reload, so it is swallowed.
/^stream \{/ {
    print "stream {"
    print "    server {"
    print "        listen 127.0.0.1:{{ .StreamPort }};"
    print "        return ok;"
    print "    }"
    print "}"
    seen["stream"]++
    skipping = 1
}
skipping {
    if (/^\}/) skipping = 0
    next
}

# No set-misc module in Debian.
/set_escape_uri \$escaped_request_uri \$request_uri;/ {
    print "            set_by_lua_block $escaped_request_uri { return ngx.escape_uri(ngx.var.request_uri) }"
    seen["set_escape_uri"]++
    next
}

# What is being served, for hack/e2e/ingressnginx to wait on instead of guessing. The comments say which Ingresses
# this file was made from (values in hex, cut, since nginx takes no comment over 4 KiB); the server says which
# file the answering worker runs (/checksum) and whether that worker has a backend's endpoints, which reach it
# by a timer of its own (/balancer/NAME). Nothing of it is on the path of a request.
/# default server, used for NGINX healthcheck/ {
    print "    {{ range $server := $servers }}{{ range $location := $server.Locations }}{{ with $location.Ingress }}"
    print "    {{ $id := printf \"%s/%s\" .Namespace .Name }}"
    print "    {{ $path := $location.Path }}{{ if $location.IngressPath }}{{ $path = $location.IngressPath }}{{ end }}"
    print "    # served {{ $id }} path {{ $server.Hostname }} {{ printf \"%.1500x\" $path }} {{ $location.Backend }}"
    print "    {{ if $location.Denied }}"
    print "    # served {{ $id }} denied {{ printf \"%.1500x\" (quote $location.Denied) }}"
    print "    {{ end }}"
    print "    {{ range $key, $value := .Annotations }}{{ if hasPrefix $key \"nginx.ingress.kubernetes.io/\" }}"
    print "    # served {{ $id }} annotation {{ $key }} {{ printf \"%.1500x\" $value }}"
    print "    {{ end }}{{ end }}"
    print "    {{ end }}{{ end }}{{ end }}"
    print "    server {"
    print "        listen 10248;"
    print "        set $proxy_upstream_name \"internal\";"
    print "        access_log off;"
    print "        keepalive_timeout 0;"
    print "        default_type text/plain;"
    print "        location = /checksum {"
    print "            return 200 \"{{ $all.Cfg.Checksum }}\";"
    print "        }"
    print "        location ~ ^/balancer/(?<balancer_name>.+)$ {"
    print "            content_by_lua_block {"
    print "                local found = require(\"balancer\").get_balancer_by_upstream_name(ngx.var.balancer_name)"
    print "                if not found then"
    print "                    return ngx.exit(ngx.HTTP_NOT_FOUND)"
    print "                end"
    print "                ngx.say(\"ready\")"
    print "            }"
    print "        }"
    print "    }"
    print ""
    seen["served"]++
}

{ print }

END {
    split("pid stream set_escape_uri served", expected)
    for (i in expected)
        if (seen[expected[i]] != 1) {
            print "template.awk: the rule for " expected[i] " applied " seen[expected[i]] + 0 " times, want 1" > "/dev/stderr"
            failed = 1
        }
    exit failed
}
