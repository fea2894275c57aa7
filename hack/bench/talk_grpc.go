package main

import (
	"bytes"
	"encoding/binary"
	"fmt"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keywright/keywright/webhook/grpcauth"
)

// grpcConns is how many connections share the requests: Envoy has one for each
// of its threads.
const grpcConns = 4

// grpcTalk is a client of Check in bare HTTP/2 frames. It minds no flow
// control: what it has open is less than servers grant at first, and it grants
// more than it will ever be sent.
type grpcTalk struct {
	policy string
	expect []byte
	// messages are requests as gRPC sends them, by token.
	messages map[string][]byte

	written bytes.Buffer
	arrived bytes.Reader
	frames  *http2.Framer
	headers bytes.Buffer
	encoder *hpack.Encoder
	stream  uint32
	// allowed are streams whose answer has allowed, and that go on.
	allowed map[uint32]bool
}

func newGRPCTalk(policy, expect string) *grpcTalk {
	g := &grpcTalk{policy: policy, expect: []byte(expect), messages: map[string][]byte{}, allowed: map[uint32]bool{}}
	g.frames = http2.NewFramer(&g.written, &g.arrived)
	g.frames.SetReuseFrames()
	g.encoder = hpack.NewEncoder(&g.headers)
	g.stream = 1
	return g
}

// flush appends what was written; a buffer takes everything.
func (g *grpcTalk) flush(out []byte) []byte {
	out = append(out, g.written.Bytes()...)
	g.written.Reset()
	return out
}

func (g *grpcTalk) open(out []byte) []byte {
	out = append(out, http2.ClientPreface...)
	_ = g.frames.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	_ = g.frames.WriteWindowUpdate(0, 1<<30)
	return g.flush(out)
}

// What Envoy sends with each call.
var grpcHeaders = []hpack.HeaderField{
	{Name: ":method", Value: "POST"},
	{Name: ":path", Value: authv3.Authorization_Check_FullMethodName},
	{Name: ":authority", Value: "keywright-webhook.keywright-system.svc.cluster.local"},
	{Name: ":scheme", Value: "http"},
	{Name: "te", Value: "trailers"},
	{Name: "grpc-timeout", Value: "10000m"},
	{Name: "content-type", Value: "application/grpc"},
	{Name: "x-envoy-internal", Value: "true"},
	{Name: "x-forwarded-for", Value: "10.244.1.17"},
}

func (g *grpcTalk) ask(out []byte, token string) ([]byte, error) {
	message, ok := g.messages[token]
	if !ok {
		raw, err := proto.Marshal(g.question(token))
		if err != nil {
			return nil, fmt.Errorf("making a CheckRequest: %w", err)
		}
		message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(raw))), raw...) //nolint:gosec // short
		g.messages[token] = message
	}
	g.headers.Reset()
	for _, field := range grpcHeaders {
		if err := g.encoder.WriteField(field); err != nil {
			return nil, fmt.Errorf("writing headers: %w", err)
		}
	}
	if err := g.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: g.stream, BlockFragment: g.headers.Bytes(), EndHeaders: true}); err != nil {
		return nil, fmt.Errorf("writing headers: %w", err)
	}
	if err := g.frames.WriteData(g.stream, true, message); err != nil {
		return nil, fmt.Errorf("writing a message: %w", err)
	}
	g.stream += 2
	return g.flush(out), nil
}

// question is what Envoy asks about the request that ingress-nginx asks about
// in the other cases.
func (g *grpcTalk) question(token string) *authv3.CheckRequest {
	peer := &authv3.AttributeContext_Peer{}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: peer, Destination: peer,
		ContextExtensions: map[string]string{grpcauth.PolicyExtension: "shop/" + g.policy},
		Request: &authv3.AttributeContext_Request{
			Time: timestamppb.Now(),
			Http: &authv3.AttributeContext_HttpRequest{
				Id: "5f0c2b6f-0d1e-4c7a-9b8e-3d2c1a0f9e8d", Method: "GET", Path: "/orders/1234?full=true",
				Host: "shop.example.com", Scheme: "https", Protocol: "HTTP/2",
				Headers: map[string]string{
					":authority": "shop.example.com", ":method": "GET", ":path": "/orders/1234?full=true", ":scheme": "https",
					"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
					"accept":     "application/json", "accept-encoding": "gzip, deflate, br",
					"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https", "x-request-id": "5f0c2b6f-0d1e-4c7a-9b8e-3d2c1a0f9e8d",
					"authorization": "Bearer " + token,
				},
			},
		},
	}}
}

// frameHeader is how long the header of a frame is.
const frameHeader = 9

func (g *grpcTalk) hear(in, out []byte) (used, answers int, back []byte, err error) {
	for {
		rest := in[used:]
		if len(rest) < frameHeader {
			return used, answers, g.flush(out), nil
		}
		length := frameHeader + int(rest[0])<<16 + int(rest[1])<<8 + int(rest[2])
		if len(rest) < length {
			return used, answers, g.flush(out), nil
		}
		g.arrived.Reset(rest[:length])
		used += length
		frame, err := g.frames.ReadFrame()
		if err != nil {
			return 0, 0, nil, fmt.Errorf("reading a frame: %w", err)
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = g.frames.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = g.frames.WritePing(true, f.Data)
			}
		case *http2.WindowUpdateFrame:
		case *http2.DataFrame:
			if !bytes.HasPrefix(f.Data()[min(5, len(f.Data())):], statusOK) || !bytes.Contains(f.Data(), g.expect) {
				return 0, 0, nil, fmt.Errorf("answered %q", f.Data())
			}
			g.allowed[f.StreamID] = true
		case *http2.HeadersFrame:
			if !f.StreamEnded() {
				continue
			}
			if !g.allowed[f.StreamID] {
				return 0, 0, nil, fmt.Errorf("answered with an error: %q", f.HeaderBlockFragment())
			}
			delete(g.allowed, f.StreamID)
			answers++
		default:
			return 0, 0, nil, fmt.Errorf("unexpected frame: %s", frame)
		}
	}
}

// statusOK is how a CheckResponse that allows begins: field 1, a status that
// is there and empty.
var statusOK = []byte{1<<3 | 2, 0}
