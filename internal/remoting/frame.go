package remoting

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
)

// MaxFrame is the size of the largest frame that is read or written, in bytes: twice the largest response to a pull of a broker with default
// settings.
const MaxFrame = 64 << 20

const (
	flagResponse = 1 << 0
	flagOneway   = 1 << 1

	jsonHeader   = 0
	binaryHeader = 1
)

// Command is the content of a frame: a request or a response.
type Command struct {
	Code     Code
	Language string // of the sender. Defaults to GO when sending.
	Version  int    // of the sender. Defaults to Version when sending.
	Binary   bool   // the header is in the binary encoding, which RocketMQ calls ROCKETMQ, and not in JSON
	Opaque   int32  // the number of a request and of the response to it
	Flag     int
	Remark   string            // the reason of a response other than Success
	Ext      map[string]string // the header's fields, by name
	Body     []byte
}

// Response reports whether c is a response.
func (c *Command) Response() bool { return c.Flag&flagResponse != 0 }

// Oneway reports whether the sender of c expects no response.
func (c *Command) Oneway() bool { return c.Flag&flagOneway != 0 }

// AsOneway returns a copy of request c that expects no response.
func (c *Command) AsOneway() *Command {
	oneway := *c
	oneway.Flag |= flagOneway
	return &oneway
}

// Answer returns a response to request c.
func (c *Command) Answer(code Code, remark string) *Command {
	return &Command{Code: code, Remark: remark, Opaque: c.Opaque, Flag: flagResponse, Binary: c.Binary}
}

// Err returns a *ResponseError, or nil if the code of response c is Success.
func (c *Command) Err() error { return c.errorOf(0) }

// errorOf is Err for the response to a request.
func (c *Command) errorOf(request Code) error {
	if c.Code == Success {
		return nil
	}
	return &ResponseError{Code: c.Code, Remark: c.Remark, Request: request}
}

// Append appends the frame of c to b.
func (c *Command) Append(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // the lengths, which are written below
	h := header{c.Code, cmp.Or(c.Language, "GO"), cmp.Or(c.Version, Version), c.Opaque, c.Flag, c.Remark, c.Ext}
	encoding := uint32(jsonHeader)
	if c.Binary && h.fitsBinary() {
		encoding = binaryHeader
		b = h.appendBinary(b)
	} else {
		b = h.append(b)
	}
	n := len(b) - start - 8
	if n >= 1<<24 || 4+n+len(c.Body) > MaxFrame {
		return b[:start], fmt.Errorf("encode frame: header of %d and body of %d bytes exceed %d", n, len(c.Body), MaxFrame)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(4+n+len(c.Body)))
	binary.BigEndian.PutUint32(b[start+4:], encoding<<24|uint32(n))
	return append(b, c.Body...), nil
}

// Read reads one frame. The error is io.EOF if the stream ended between two frames. It matches ErrMalformed if the bytes are no frame: then
// nothing that follows can be read.
func Read(r io.Reader) (*Command, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < 4 || n > MaxFrame {
		return nil, fmt.Errorf("%w frame: length %d", ErrMalformed, n)
	}
	b, err := readN(r, int(n))
	if err != nil {
		return nil, err
	}
	return Decode(b)
}

// readN reads n bytes. It allocates memory as they come, so that a peer can't make it allocate with a length alone.
func readN(r io.Reader, n int) ([]byte, error) {
	const step = 1 << 20
	b := make([]byte, min(n, step))
	for at := 0; at < n; at = len(b) {
		if at > 0 {
			b = append(b, make([]byte, min(n-at, step))...)
		}
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return b, nil
}

// Decode decodes a frame without its leading length. The command's body is part of b.
func Decode(b []byte) (*Command, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("%w frame: %d bytes", ErrMalformed, len(b))
	}
	encoding, n := b[0], int(binary.BigEndian.Uint32(b)&0xffffff)
	b = b[4:]
	if n > len(b) {
		return nil, fmt.Errorf("%w frame: header of %d bytes in %d", ErrMalformed, n, len(b))
	}
	var c *Command
	switch encoding {
	case jsonHeader:
		h, err := decodeHeader(b[:n])
		if err != nil {
			return nil, err
		}
		c = &Command{Code: h.Code, Language: h.Language, Version: h.Version, Opaque: h.Opaque, Flag: h.Flag, Remark: h.Remark, Ext: h.Ext}
	case binaryHeader:
		var err error
		if c, err = decodeBinaryHeader(b[:n]); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%w header: unknown encoding %d", ErrMalformed, encoding)
	}
	if len(b) > n {
		c.Body = b[n:]
	}
	return c, nil
}
