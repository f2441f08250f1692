"""Numbers become a judgement: metrics, baselines, and the backtest that scores every predictor alike.

May import `errors`, `config` and `data`; knows neither the network nor its training.
"""
