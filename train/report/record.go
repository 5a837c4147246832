package report

import (
	"encoding/binary"
	"hash/crc32"
)

// record appends data in the framing of TFRecord files, all little endian:
//
//	length uint64 · masked CRC of length uint32 · data · masked CRC of data uint32
//
// Source: TensorFlow, tensorflow/core/lib/io/record_writer.h.
func record(b, data []byte) []byte {
	at := len(b)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, masked(b[at:]))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint32(b, masked(data))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is CRC-32C rotated and offset, so that the CRC of data that holds CRCs stays a good one.
//
// Source: TensorFlow, tensorflow/core/lib/hash/crc32c.h.
func masked(data []byte) uint32 {
	crc := crc32.Checksum(data, castagnoli)
	return (crc>>15 | crc<<17) + 0xa282ead8
}
