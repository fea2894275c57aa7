package main

import (
	"bytes"
	"fmt"
)

// The subrequest as ingress-nginx sends it, for a client that sends what curl
// and browsers do. With auth-keepalive there is no Connection.
const (
	requestHead = "GET /auth/nginx/shop/%s?host=shop.example.com HTTP/1.1\r\n" +
		"Host: keywright-webhook.keywright-system.svc.cluster.local\r\n%s" +
		"X-Request-ID: 5f0c2b6f0d1e4c7a9b8e3d2c1a0f9e8d\r\n" +
		"X-Original-URL: https://shop.example.com/orders/1234?full=true\r\n" +
		"X-Original-Method: GET\r\n" +
		"X-Sent-From: nginx-ingress-controller\r\n" +
		"X-Real-IP: 203.0.113.7\r\n" +
		"X-Forwarded-For: 203.0.113.7\r\n" +
		"X-Auth-Request-Redirect: /orders/1234?full=true\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
		"Accept: application/json\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\n" +
		"Authorization: Bearer "
	requestEnd = "\r\n\r\n"
)

// httpTalk asks one request at a time. Answers have no body.
type httpTalk struct {
	head   string
	expect []byte
}

func newHTTPTalk(policy, expect string, once bool) *httpTalk {
	connection := ""
	if once {
		connection = "Connection: close\r\n"
	}
	if expect != "" {
		expect = identityHeader + ": " + expect + "\r\n"
	}
	return &httpTalk{head: fmt.Sprintf(requestHead, policy, connection), expect: []byte(expect)}
}

func (*httpTalk) open(out []byte) []byte { return out }

func (h *httpTalk) ask(out []byte, token string) ([]byte, error) {
	return append(append(append(out, h.head...), token...), requestEnd...), nil
}

func (h *httpTalk) hear(in, out []byte) (used, answers int, back []byte, err error) {
	if !bytes.HasSuffix(in, []byte(requestEnd)) {
		return 0, 0, out, nil
	}
	if !bytes.HasPrefix(in, []byte("HTTP/1.1 200 ")) || !bytes.Contains(in, h.expect) {
		return 0, 0, nil, fmt.Errorf("answered %q", in)
	}
	return len(in), 1, out, nil
}
