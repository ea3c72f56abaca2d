package remoting

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// cursor reads big-endian fields. At the end of its bytes it sets failed and returns zeros.
type cursor struct {
	b      []byte
	failed bool
}

func (c *cursor) next(n int) []byte {
	if c.failed || n < 0 || n > len(c.b) {
		c.failed = true
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) uint8() uint8 {
	if b := c.next(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) int16() int16 {
	if b := c.next(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) int32() int32 {
	if b := c.next(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (c *cursor) int64() int64 {
	if b := c.next(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// languages has the names of the numbers that stand for a peer's language in a binary header.
var languages = []string{"JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST", "NODE_JS"}

// fitsBinary reports whether the binary encoding can have the header: it has fewer bits than JSON for some fields.
func (h *header) fitsBinary() bool {
	for name := range h.Ext {
		if len(name) > math.MaxInt16 {
			return false
		}
	}
	return h.Code == Code(int16(h.Code)) && h.Version == int(int16(h.Version)) && h.Flag == int(int32(h.Flag)) && len(h.Remark) <= MaxFrame
}

// appendBinary appends the header in the binary encoding.
func (h *header) appendBinary(b []byte) []byte {
	be := binary.BigEndian
	b = be.AppendUint16(b, uint16(h.Code))
	b = append(b, byte(max(slices.Index(languages, h.Language), 0)))
	b = be.AppendUint16(b, uint16(h.Version))
	b = be.AppendUint32(b, uint32(h.Opaque))
	b = be.AppendUint32(b, uint32(h.Flag))
	b = be.AppendUint32(b, uint32(len(h.Remark)))
	b = append(b, h.Remark...)
	at := len(b)
	b = be.AppendUint32(b, 0) // the size of the fields, which is written below
	for name, value := range h.Ext {
		if value == "" { // Java decodes it as null, and takes it into its signature as "null"
			continue
		}
		b = be.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
		b = be.AppendUint32(b, uint32(len(value)))
		b = append(b, value...)
	}
	be.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// decodeBinaryHeader decodes a header in the encoding that RocketMQ calls ROCKETMQ.
func decodeBinaryHeader(b []byte) (*Command, error) {
	r := &cursor{b: b}
	c := &Command{Code: Code(r.int16()), Binary: true}
	if l := int(r.uint8()); l < len(languages) {
		c.Language = languages[l]
	}
	c.Version = int(r.int16())
	c.Opaque = r.int32()
	c.Flag = int(r.int32())
	c.Remark = string(r.next(int(r.int32())))
	ext := &cursor{b: r.next(int(r.int32()))}
	for !r.failed && !ext.failed && len(ext.b) > 0 {
		field := ext.next(int(ext.int16()))
		name, known := fieldNames[string(field)]
		if !known {
			name = string(field)
		}
		value := string(ext.next(int(ext.int32())))
		if c.Ext == nil {
			c.Ext = make(map[string]string, 16)
		}
		c.Ext[name] = value
	}
	if r.failed || ext.failed {
		return nil, fmt.Errorf("%w header: cut short", ErrMalformed)
	}
	return c, nil
}
