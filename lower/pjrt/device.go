package pjrt

import "fmt"

// Device is one addressable device of a client.
type Device struct {
	c    *Client
	h    deviceHandle
	ID   int    // global, as in device assignments
	Kind string // such as "cpu" or the name of the GPU
}

// String names the device.
func (d *Device) String() string { return fmt.Sprintf("device %d", d.ID) }

// MemoryStats returns bytes in use and the most there were. Not every plugin has them: the error
// is then UNIMPLEMENTED.
func (d *Device) MemoryStats() (inUse, peak int64, err error) {
	if err := d.c.enter(); err != nil {
		return 0, 0, err
	}
	defer d.c.leave()
	a := deviceMemoryStatsArgs{device: d.h}
	err = d.c.p.deviceMemoryStats(&a)
	return a.bytesInUse, a.peakBytesInUse, err
}

// addressable reads the client's devices.
func (c *Client) addressable() (ds []*Device, err error) {
	a := clientAddressableDevicesArgs{client: c.h}
	if err := c.p.clientAddressableDevices(&a); err != nil {
		return nil, err
	}
	for _, h := range goSlice[deviceHandle](a.addressableDevices, a.numAddressableDevices) {
		g := deviceGetDescriptionArgs{device: h}
		if err := c.p.deviceGetDescription(&g); err != nil {
			return nil, err
		}
		i := deviceDescriptionIdArgs{deviceDescription: g.deviceDescription}
		if err := c.p.deviceDescriptionId(&i); err != nil {
			return nil, err
		}
		k := deviceDescriptionKindArgs{deviceDescription: g.deviceDescription}
		if err := c.p.deviceDescriptionKind(&k); err != nil {
			return nil, err
		}
		ds = append(ds, &Device{c: c, h: h, ID: int(i.id), Kind: goString(k.deviceKind, k.deviceKindSize)})
	}
	if len(ds) == 0 {
		return nil, fmt.Errorf("pjrt: the client has no addressable device")
	}
	return ds, nil
}

// device returns d, or the first device for nil; a device of another client is refused.
func (c *Client) device(d *Device) (deviceHandle, error) {
	if d == nil {
		return c.devices[0].h, nil
	}
	if d.c != c {
		return 0, fmt.Errorf("pjrt: %v is of another client", d)
	}
	return d.h, nil
}
