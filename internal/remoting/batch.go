package remoting

import "encoding/binary"

// BatchOverhead is the size of the fields of a batch's member that have a fixed size, in bytes.
const BatchOverhead = 5*4 + 2

// AppendBatchMember appends a message to the body of a SendBatchMessage request: its size, magic and checksum, which brokers make
// themselves, its flag, body and properties. The encoded properties must not be longer than MaxProperties.
func AppendBatchMember(b []byte, props map[string]string, body []byte) []byte {
	be, start := binary.BigEndian, len(b)
	b = be.AppendUint32(b, 0)          // the size, which is written below
	b = append(b, make([]byte, 12)...) // magic, checksum and flag
	b = be.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	encoded := EncodeProperties(props)
	b = be.AppendUint16(b, uint16(len(encoded)))
	b = append(b, encoded...)
	be.PutUint32(b[start:], uint32(len(b)-start))
	return b
}
