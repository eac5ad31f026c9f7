/* SPDX-License-Identifier: MIT */
import java.io.RandomAccessFile;
import java.nio.LongBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;

/**
 * FillMap FILE MIB THREADS: each thread fills its part of a mapped sparse file, and meanwhile meets
 * null pointers, which the JVM knows by SIGSEGV of its own.
 */
public class FillMap {
	static long nulls;

	static int nullLength(int[] array) {
		return array.length;
	}

	static void fill(LongBuffer part, long seed) {
		for (int i = 0; i < part.capacity(); i++)
			part.put(i, (seed + i) * 0x9E3779B97F4A7C15L);
	}

	static void meetNulls() {
		for (int i = 0; i < 20000; i++) {
			try {
				nulls += nullLength(i % 1000 == 7 ? null : new int[1]);
			} catch (NullPointerException caught) {
				nulls += 1000000;
			}
		}
	}

	public static void main(String[] args) throws Exception {
		long size = Long.parseLong(args[1]) << 20;
		int threads = Integer.parseInt(args[2]);
		Thread[] all = new Thread[threads];
		Throwable[] thrown = new Throwable[threads];

		try (RandomAccessFile file = new RandomAccessFile(args[0], "rw")) {
			file.setLength(size);
			MappedByteBuffer map = file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, size);
			for (int i = 0; i < threads; i++) {
				int number = i;
				long part = size / threads;
				LongBuffer mine =
						map.slice((int) (number * part), (int) part).asLongBuffer();
				all[i] = new Thread(() -> {
					try {
						fill(mine, number * part / 8);
					} catch (Throwable failure) {
						thrown[number] = failure;
					}
				});
				all[i].start();
			}
			meetNulls();
			for (Thread thread : all)
				thread.join();
			for (Throwable failure : thrown)
				if (failure != null)
					throw new Exception(failure);
			map.force();
		}
		System.out.println("nulls " + nulls);
	}
}
