#   docker build -t keywright:0.1.0 .
#       compiles in the golang image, which has to be fetched or at hand
#   make build && docker build --target prebuilt -t keywright:0.1.0 .
#       takes bin/keywright as it is and needs no other image at all

# The program is static, brings its own time zones and, for what it fetches over
# TLS, its own root certificates (--fetch-ca-file adds others), and needs no
# passwd file. The user is a number, so that the kubelet can see that it is not
# root.
FROM scratch AS prebuilt
ARG BINARY=bin/keywright
COPY ${BINARY} /keywright
USER 65532:65532
EXPOSE 8080 8081 8443
ENTRYPOINT ["/keywright"]

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags="-s -w -buildid= -X main.version=$VERSION" -o /keywright ./cmd/keywright

FROM scratch
COPY --from=build /keywright /keywright
USER 65532:65532
EXPOSE 8080 8081 8443
ENTRYPOINT ["/keywright"]
