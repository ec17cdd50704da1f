/* Copying past the caches: stores that do not first read the line they fill. */
static void stream(uint8_t *dst, const uint8_t *src, size_t bytes)
{
    size_t head = (size_t)(-(uintptr_t)dst & 31);
    if (head > bytes) {
        head = bytes;
    }
    memcpy(dst, src, head);
    size_t i = head;
    for (; i + 32 <= bytes; i += 32) {
        _mm256_stream_si256((__m256i *)(dst + i), _mm256_loadu_si256((const __m256i *)(src + i)));
    }
    memcpy(dst + i, src + i, bytes - i);
}
static void stream_end(void) { _mm_sfence(); }
