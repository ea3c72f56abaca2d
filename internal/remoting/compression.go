package remoting

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Methods by which a body can be compressed, in bits 8 to 10 of a record's system flag. Clients before 5.0 leave them 0.
const (
	compressionUnnamed = 0 // zlib
	compressionLZ4     = 1
	compressionZstd    = 2
	compressionZlib    = 3
)

// ErrTooLong is matched by the error about a body that is larger than the limit when it is decompressed.
var ErrTooLong = errors.New("decompressed body is too long")

// Decompress returns the body that a sender compressed by the method that the record's system flag names. limit bounds the
// result, in bytes: a few bytes can stand for gigabytes. An error about a result that is longer matches ErrTooLong.
func Decompress(sysFlag int32, body []byte, limit int) ([]byte, error) {
	method := sysFlag & compressionBits >> 8
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("%w record: decompress body by method %d: %w", ErrMalformed, method, err)
	}
	var r io.Reader
	switch method {
	case compressionUnnamed, compressionZlib:
		z, err := zlib.NewReader(bytes.NewReader(body))
		if err != nil {
			return fail(err)
		}
		r = z
	case compressionLZ4:
		r = lz4.NewReader(bytes.NewReader(body))
	case compressionZstd:
		z, err := zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit)+zstdWindow))
		if err != nil {
			return fail(err)
		}
		defer z.Close()
		r = z
	default:
		return fail(errors.New("want lz4 (1), zstd (2) or zlib (3)"))
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	switch {
	case len(out) > limit || errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
	case err != nil:
		return fail(err)
	}
	return out, nil
}

// zstdWindow is the history that an encoder may refer to, which a decoder holds besides its output.
const zstdWindow = 8 << 20

// Compress compresses a body with zlib, which every client can read. It returns false if that doesn't make the body smaller, as with one
// that is compressed already: of a large body it tries the beginning first.
func Compress(body []byte) (compressed []byte, smaller bool) {
	const sample = 16 << 10
	if len(body) > 4*sample && len(compress(body[:sample])) > sample*9/10 {
		return nil, false
	}
	compressed = compress(body)
	return compressed, len(compressed) < len(body)
}

func compress(body []byte) []byte {
	var out bytes.Buffer
	w, err := zlib.NewWriterLevel(&out, compressionLevel)
	if err == nil {
		_, err = w.Write(body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // the level is valid, and a buffer takes everything
	}
	return out.Bytes()
}

// compressionLevel is that of RocketMQ's own clients.
const compressionLevel = 5
