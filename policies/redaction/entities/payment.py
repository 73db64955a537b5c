"""Keys and tokens of payment and shops."""

from __future__ import annotations

from .making import token

STRIPE = token(  # docs.stripe.com/keys, docs.stripe.com/webhooks
    "STRIPE_KEY",
    r"[sre]k_(?:org_)?(?:live|test|prod)_[A-Za-z0-9]{10}",
    r"whsec_[A-Za-z0-9+/]{20}",
    rest=r"[A-Za-z0-9+/=_]",
)
SHOPIFY = token("SHOPIFY_TOKEN", r"shp(?:at|ca|pa|ss|ua|ra|it)_[a-fA-F0-9]{24}")  # gitleaks shopify-*
# developer.squareup.com, developer.paypal.com, razorpay.com, flutterwave.com, plaid.com.
PAYMENT = token(
    "PAYMENT_KEY",
    r"sq0[a-z]{3}-[A-Za-z0-9_-]{20}",  # Square
    r"EAAA[A-Za-z0-9_-]{50}",
    r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{20}",  # Braintree
    r"rzp_(?:live|test)_[A-Za-z0-9]{12}",  # Razorpay
    r"FLWSECK(?:_TEST)?-[A-Za-z0-9]{12}",  # Flutterwave
    r"access-(?:sandbox|development|production)-[0-9a-f]{8}-[0-9a-f-]{20}",  # Plaid
    r"pdl_(?:live|sdbx)_apikey_[a-z0-9]{26}_[A-Za-z0-9]{16}",  # Paddle
    r"xnd_(?:production|development)_[A-Za-z0-9]{30}",  # Xendit
    r"(?:SB-)?Mid-server-[A-Za-z0-9_-]{20}",  # Midtrans
    r"(?:APP_USR|TEST)-\d{10,20}-\d{6}-[a-f0-9]{28}",  # Mercado Pago
    r"A21AA[A-Za-z0-9_-]{60}",  # PayPal
    r"sk_sbox_[a-z0-9]{20}",  # Checkout.com
)
