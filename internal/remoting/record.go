package remoting

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/clock"
)

const (
	recordMagic = 0xDAA320A7

	// MaxTopic is the largest length of a topic's name that a record can hold, in bytes.
	MaxTopic = 127
	// MaxProperties is the largest length of encoded properties that a record can hold, in bytes.
	MaxProperties = math.MaxInt16

	maxBody = 64 << 20 // after decompression
)

// Bits of a record's system flag.
const (
	FlagCompressed  = 1 << 0
	FlagTransaction = 3 << 2
	flagBornV6      = 1 << 4
	flagStoreV6     = 1 << 5
	compressionBits = 7 << 8 // 0 and 3: zlib

	// FlagInnerBatch marks a record whose body is a batch, which brokers keep in topics of type BatchCQ.
	FlagInnerBatch = 1 << 7
)

// Record is a stored message: as it is in a broker's commit log, in responses to pulls, and in checks.
type Record struct {
	Topic          string
	Queue          int
	QueueOffset    int64
	CommitLog      int64
	Flag           int32
	SysFlag        int32
	Born, Stored   time.Time // when it was sent and when it was stored, in milliseconds; decoded by Instant
	BornHost       netip.AddrPort
	StoreHost      netip.AddrPort
	Reconsumed     int
	PreparedOffset int64
	Properties     map[string]string
	Appended       map[string]string // encoded after Properties, and may repeat names: see DecodeProperties. Decoding doesn't set it.
	Body           []byte            // as stored, perhaps compressed: see Payload

	// Damage is why a record isn't what a sender has sent, although it can be decoded in part: see Salvage. nil: it is.
	Damage error
}

// Size returns the length of the encoded record, with the hosts' kinds that SysFlag names.
func (r *Record) Size() int {
	const fixed = 91 // with hosts of 4 bytes
	size := fixed + len(r.Body) + len(r.Topic)
	for _, bit := range [...]int32{flagBornV6, flagStoreV6} {
		if r.SysFlag&bit != 0 {
			size += 16 - 4
		}
	}
	for _, properties := range [...]map[string]string{r.Properties, r.Appended} {
		for name, value := range properties {
			size += len(name) + len(afterName) + len(value) + len(afterValue)
		}
	}
	return size
}

// Append appends the encoded record to b.
func (r *Record) Append(b []byte) ([]byte, error) {
	props := EncodeProperties(r.Properties) + EncodeProperties(r.Appended)
	if len(r.Topic) > MaxTopic || len(props) > MaxProperties {
		return b, fmt.Errorf("encode record: topic of %d and properties of %d bytes, want at most %d and %d", len(r.Topic), len(props), MaxTopic, MaxProperties)
	}
	sys := r.SysFlag &^ (flagBornV6 | flagStoreV6)
	if r.BornHost.Addr().Unmap().Is6() {
		sys |= flagBornV6
	}
	if r.StoreHost.Addr().Unmap().Is6() {
		sys |= flagStoreV6
	}
	const rest = 120 // the most that all fields of fixed size take
	b = slices.Grow(b, rest+len(r.Body)+len(r.Topic)+len(props))
	be, start := binary.BigEndian, len(b)
	b = be.AppendUint32(b, 0) // the size, which is written below
	b = be.AppendUint32(b, recordMagic)
	b = be.AppendUint32(b, crc32.ChecksumIEEE(r.Body)&math.MaxInt32)
	b = be.AppendUint32(b, uint32(r.Queue))
	b = be.AppendUint32(b, uint32(r.Flag))
	b = be.AppendUint64(b, uint64(r.QueueOffset))
	b = be.AppendUint64(b, uint64(r.CommitLog))
	b = be.AppendUint32(b, uint32(sys))
	b = be.AppendUint64(b, uint64(r.Born.UnixMilli()))
	b = appendHost(b, r.BornHost)
	b = be.AppendUint64(b, uint64(r.Stored.UnixMilli()))
	b = appendHost(b, r.StoreHost)
	b = be.AppendUint32(b, uint32(r.Reconsumed))
	b = be.AppendUint64(b, uint64(r.PreparedOffset))
	b = be.AppendUint32(b, uint32(len(r.Body)))
	b = append(b, r.Body...)
	b = append(b, byte(len(r.Topic)))
	b = append(b, r.Topic...)
	b = be.AppendUint16(b, uint16(len(props)))
	b = append(b, props...)
	be.PutUint32(b[start:], uint32(len(b)-start))
	return b, nil
}

func appendHost(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	return binary.BigEndian.AppendUint32(append(b, ip.AsSlice()...), uint32(a.Port()))
}

// DecodeRecords decodes consecutive records. Their bodies are parts of b. The error is about the first that can't be decoded; the
// records before it are returned with it.
func DecodeRecords(b []byte) ([]*Record, error) { return DecodeFirstRecords(b, math.MaxInt) }

// DecodeFirstRecords is DecodeRecords for at most most records. What follows them isn't looked at.
func DecodeFirstRecords(b []byte, most int) ([]*Record, error) {
	var records []*Record
	for len(b) > 0 && len(records) < most {
		r, n, err := decodeRecord(b)
		if err != nil {
			return records, err
		}
		records, b = append(records, r), b[n:]
	}
	return records, nil
}

// maxSalvaged is how many bytes of a record that can't be decoded Salvage keeps.
const maxSalvaged = 1 << 20

// Salvage returns what can be read of the first record in b, of which DecodeRecords or a comparison with what was requested has found
// that it is damaged. Its body, if that can't be read, is the record's bytes as they came, at most the first MiB. size is how many bytes
// the record takes, or 0 if that is unknown: then nothing that follows it can be found. Fields that can't be read are zero.
func Salvage(b []byte, damage error) (r *Record, size int) {
	size = int((&cursor{b: b}).int32())
	if size < 8 || size > len(b) {
		size = 0
	}
	all := b
	if size > 0 {
		all = b[:size]
	}
	r, c, _ := decodeFields(all)
	if c.failed {
		r.Properties = nil
	}
	if len(r.Body) == 0 {
		r.Body = all[:min(len(all), maxSalvaged)]
		r.SysFlag = 0 // it says nothing about these bytes
	}
	r.Damage = damage
	return r, size
}

// decodeFields decodes the fields of one record. What can't be read is zero, and the cursor has failed then.
func decodeFields(b []byte) (r *Record, c *cursor, crc uint32) {
	c = &cursor{b: b}
	c.next(8) // size and magic
	crc = uint32(c.int32())
	r = &Record{Queue: int(c.int32()), Flag: c.int32(), QueueOffset: c.int64(), CommitLog: c.int64(), SysFlag: c.int32()}
	r.Born = Instant(c.int64())
	r.BornHost = decodeHost(c, r.SysFlag&flagBornV6 != 0)
	r.Stored = Instant(c.int64())
	r.StoreHost = decodeHost(c, r.SysFlag&flagStoreV6 != 0)
	r.Reconsumed = int(c.int32())
	r.PreparedOffset = c.int64()
	r.Body = c.next(int(c.int32()))
	r.Topic = string(c.next(int(c.uint8())))
	props := string(c.next(int(c.int16())))
	var whole bool
	if r.Properties, whole = decodeProperties(props); !whole {
		r.Damage = fmt.Errorf("%w record: properties with an entry that has no name or no value", ErrMalformed)
	}
	return r, c, crc
}

// Instant returns the time of a number of milliseconds since 1970 that a client or broker has sent: zero if it isn't in the years 1 to 9999.
func Instant(ms int64) time.Time {
	if t := time.UnixMilli(ms); clock.IsInstant(t) {
		return t
	}
	return time.Time{}
}

func decodeRecord(b []byte) (*Record, int, error) {
	whole := &cursor{b: b}
	size, magic := int(whole.int32()), uint32(whole.int32())
	if whole.failed || size < 8 || size > len(b) {
		return nil, 0, fmt.Errorf("%w record: size %d in %d bytes", ErrMalformed, size, len(b))
	}
	if magic != recordMagic {
		return nil, 0, fmt.Errorf("%w record: magic %#x", ErrMalformed, magic)
	}
	r, c, crc := decodeFields(b[:size])
	if c.failed {
		return nil, 0, fmt.Errorf("%w record: cut short", ErrMalformed)
	}
	if crc != 0 && crc != crc32.ChecksumIEEE(r.Body)&math.MaxInt32 {
		return nil, 0, fmt.Errorf("%w record: checksum of the body differs", ErrMalformed)
	}
	return r, size, nil
}

func decodeHost(c *cursor, v6 bool) netip.AddrPort {
	n := 4
	if v6 {
		n = 16
	}
	ip, _ := netip.AddrFromSlice(c.next(n))
	return netip.AddrPortFrom(ip, uint16(c.int32()))
}

// Payload returns the body as it was sent: not compressed.
func (r *Record) Payload() ([]byte, error) {
	if r.SysFlag&FlagCompressed == 0 {
		return r.Body, nil
	}
	if kind := r.SysFlag & compressionBits >> 8; kind != 0 && kind != 3 {
		return nil, fmt.Errorf("%w record: body compressed by method %d, only zlib (3) is known", ErrMalformed, kind)
	}
	z, err := zlib.NewReader(bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("%w record: decompress body: %w", ErrMalformed, err)
	}
	body, err := io.ReadAll(io.LimitReader(z, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%w record: decompress body: %w", ErrMalformed, err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("%w record: body larger than %d bytes", ErrMalformed, maxBody)
	}
	return body, nil
}

// OffsetID returns the id that a broker gives a stored message: the broker's address and the offset in its commit log.
func OffsetID(host netip.AddrPort, commitLog int64) string {
	b := appendHost(nil, host)
	return strings.ToUpper(hex.EncodeToString(binary.BigEndian.AppendUint64(b, uint64(commitLog))))
}

// ParseOffsetID returns the address and the offset of which OffsetID, or a broker, has made an id.
func ParseOffsetID(id string) (host netip.AddrPort, commitLog int64, err error) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != 4+4+8 && len(b) != 16+4+8 {
		return host, 0, fmt.Errorf("%w offset id %.80q", ErrMalformed, id)
	}
	c := &cursor{b: b}
	return decodeHost(c, len(b) > 16), c.int64(), nil
}
