"""Currencies and amounts, which are whole minor units: never a float."""

from __future__ import annotations

# ISO 4217 (list one): the digits of a currency's minor unit. Funds and metals are left out.
_BY_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD "
        "CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD "
        "GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL "
        "MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN "
        "PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP "
        "SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
}
CURRENCIES = {code: digits for digits, codes in _BY_DIGITS.items() for code in codes.split()}
# An amount above is a slip of the hand; sums stay far within 64 bits.
MOST = 10**9


def format_money(amount: int, currency: str) -> str:
    """Return an amount in minor units as people write it, such as 3.20 EUR."""
    digits = CURRENCIES[currency]
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    whole, rest = divmod(amount, 10**digits)
    return f"{sign}{whole}.{rest:0{digits}d} {currency}" if digits else f"{sign}{whole} {currency}"
