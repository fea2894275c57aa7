package grpcauth

import (
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	// The codec that Codec goes by.
	protocodec "google.golang.org/grpc/encoding/proto"
)

// Codec is that of gRPC, except that it makes an empty CheckRequest of what is
// none, such as a path that is not UTF-8: Server denies it, where an error
// would be allowed by an Envoy with failure_mode_allow.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(protocodec.Name)} }

type codec struct{ encoding.CodecV2 }

// Unmarshal reads a message into v.
func (c codec) Unmarshal(raw mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(raw, v)
	if check, ok := v.(*authv3.CheckRequest); ok && err != nil {
		proto.Reset(check)
		return nil
	}
	return err
}
