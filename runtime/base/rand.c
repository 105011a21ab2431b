#include "base/rand.h"

static uint64_t rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

/* splitmix64 spreads a seed over the state (Vigna). */
void outr_rand_seed(outr_rand *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        r->s[i] = z ^ z >> 31;
    }
}

uint64_t outr_rand_next(outr_rand *r)
{
    uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t outr_rand_below(outr_rand *r, uint64_t bound)
{
    uint64_t floor = -bound % bound, x; /* below it the remainder would be biased */
    do
        x = outr_rand_next(r);
    while (x < floor);
    return x % bound;
}

double outr_rand_unit(outr_rand *r)
{
    return (double)(outr_rand_next(r) >> 11) * 0x1p-53;
}

void outr_rand_uuid(outr_rand *r, char out[OUTR_UUID_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint64_t words[2] = {outr_rand_next(r), outr_rand_next(r)};
    unsigned char bytes[16];
    memcpy(bytes, words, 16);
    bytes[6] = (unsigned char)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (unsigned char)((bytes[8] & 0x3f) | 0x80);
    char *at = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        *at++ = digits[bytes[i] >> 4];
        *at++ = digits[bytes[i] & 15];
    }
    *at = 0;
}
