# The first process in the controller's namespaces; package ingressnginx is its only caller and gives
#   BUILD       the folder that hack/ingress-nginx/build.sh printed
#   DIR         a folder of this run, with kubeconfig and an empty folder etc
#   ADDRESS     address/length of its end of the veth pair, eth0
#   NAMESPACE   the namespace of the controller's Pod and ConfigMap
# and the controller's flags as arguments. It ends with the controller, or when its standard input does.
set -euo pipefail

# A name of its own, since a shell gives its background processes another standard input.
exec 3<&0
# One line, once eth0 is here; the end of input instead if the test gave up.
read -r _

mount --make-rprivate /
mount -t proc proc /proc
ip link set lo up
ip address add "$ADDRESS" dev eth0
ip link set eth0 up

# A private copy of /etc: the controller writes to /etc/nginx and /etc/ingress-controller. (Not an overlay, which
# cannot lie on every file system that a container may have.)
mount -t tmpfs -o mode=0755 tmpfs "$DIR/etc"
cp -a /etc/. "$DIR/etc/"
mkdir -p "$DIR"/etc/keywright/build "$DIR"/etc/ingress-controller/{ssl,auth,geoip,telemetry}
mv "$DIR/kubeconfig" "$DIR/etc/keywright/kubeconfig"
rm -rf "$DIR/etc/nginx/nginx.conf" "$DIR/etc/nginx/template" "$DIR/etc/nginx/lua"
cp -r "$BUILD/etc/nginx/." "$DIR/etc/nginx/"
# Nothing in here may ask the host's resolvers; a name in an annotation fails at once.
rm -f "$DIR/etc/resolv.conf"
echo "nameserver 127.0.0.1" >"$DIR/etc/resolv.conf"
mount --bind "$DIR/etc" /etc
mount --bind "$BUILD" /etc/keywright/build

# From here on DIR and BUILD may be out of sight: they often lie below /tmp.
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir /tmp/nginx
mount -t tmpfs tmpfs /var/lib/nginx
mount -t tmpfs tmpfs /var/log/nginx

cd /
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  POD_NAME=ingress-nginx-controller POD_NAMESPACE="$NAMESPACE" NGINX_BINARY=/usr/sbin/nginx \
  /etc/keywright/build/bin/nginx-ingress-controller --kubeconfig=/etc/keywright/kubeconfig "$@" </dev/null 3<&- &
controller=$!
{
  cat >/dev/null
  kill -KILL "$controller"
} <&3 3<&- &
status=0
wait "$controller" || status=$?
exit "$status"
